/*
 * cuda.cuh - what every file of kernels/cuda begins with: the contracts, the device's state, launches, number formats.
 *
 * The same sources build with nvcc and, as C++, for the simulated device of tests/simgpu (MGPT_SIMGPU). Three things are
 * therefore written in one way only: launches by LAUNCH(), shared memory by DYNAMIC_SHARED(), and instructions that C++
 * cannot say by the wrappers of tensor.cuh.
 */
#ifndef MGPT_KERNELS_CUDA_CUH
#define MGPT_KERNELS_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#define _Noreturn __attribute__((noreturn))
#include "base/check.h"
#include "kernels/device.h"
#undef _Noreturn
}

#ifdef MGPT_SIMGPU
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    simgpu::launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define DYNAMIC_SHARED(name) unsigned char *name = simgpu::shared_memory()
#else
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

enum { LINEAR_ROWS_MAX = 256 }; /* of one product; more rows are several */
enum { LANES = 32, CHUNK = 8 }; /* a chunk is what a thread reads at once: 16 bytes of bf16 */

struct row_table;
struct linear_plans;
struct replays;
struct staging;
struct sample_table;

enum {
    CUDA_BLAS_WORKSPACE_BYTES = 32 << 20,
    CUDA_PARTIALS_BYTES = 32 << 20,
    CUDA_TABLE_BYTES = 4 << 20,
    CUDA_STAGING_BYTES = 16 << 20,
    CUDA_GRAPHS_BYTES = 128 << 20 /* of device memory that all graphs take at most */
};

/* A CUDA device as one stream sees it. All memory is taken when it is opened, but that of the plans' tests, which is given
 * back, and of graphs, up to CUDA_GRAPHS_BYTES. */
struct cuda_device {
    struct device base; /* first */
    int index;
    char path[64];
    cudaStream_t stream;
    cublasLtHandle_t blas;
    struct linear_plans *plans;
    struct row_table *rows;
    struct replays *replays;
    struct staging *staging;
    bool is_recording;    /* launches go into a graph: nothing may be copied, waited for or allocated */
    size_t held_bytes;    /* device memory that this stream has reserved */
    size_t workspace_bytes; /* of it, when the device had been opened */
    struct sample_table *draws;
    void *blas_workspace; /* [CUDA_BLAS_WORKSPACE_BYTES] */
    float *partials;      /* [CUDA_PARTIALS_BYTES] of attention's splits */
    int32_t *ids;         /* [CUDA_TABLE_BYTES] token ids on their way to embedding() */
    cudaError_t failure;  /* the first since the last wait() */
    const char *failed_at;
};

static inline struct cuda_device *cuda_of(struct device *device)
{
    return (struct cuda_device *)device;
}

/* Notes what a call of the runtime gave; STATUS_INTERNAL when it failed, told in words by the next wait(). */
static inline enum status cuda_note(struct cuda_device *cuda, cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return STATUS_OK;
    if (cuda->failure == cudaSuccess) {
        cuda->failure = error;
        cuda->failed_at = what;
    }
    return STATUS_INTERNAL;
}

static inline enum status cuda_launched(struct cuda_device *cuda, const char *what)
{
    return cuda_note(cuda, cudaGetLastError(), what);
}

/* ---- the operations, one file each ---- */

enum status embedding_cuda(struct device *device, void *y, const int32_t *ids, const void *table, enum dtype dtype,
                           int n_rows, int hidden);
enum status rmsnorm_cuda(struct device *device, const struct rmsnorm_launch *launch, enum dtype dtype, int n_rows);
enum status add_cuda(struct device *device, const struct add_launch *launch, enum dtype dtype, int n_rows);
enum status silu_mul_cuda(struct device *device, const struct silu_mul_launch *launch, enum dtype dtype, int n_rows);
enum status store_cuda(struct device *device, const struct attention_launch *launch);
enum status attention_cuda(struct device *device, const struct attention_launch *launch);
enum status linear_prepare_cuda(struct device *device, const struct linear_weight *weight, struct error *err);
enum status linear_prepare_range_cuda(struct device *device, const struct linear_weight *weight, int n_out,
                                      struct error *err);
int linear_padded_rows_cuda(int n_rows);
enum status linear_cuda(struct device *device, const struct linear_launch *launch);
enum status sample_cuda(struct device *device, struct sample_result *results, const struct sample_request *requests,
                        int n_requests);

enum status conv2d_cuda(struct device *device, const struct conv2d_launch *launch);
enum status group_norm_cuda(struct device *device, const struct group_norm_launch *launch);
enum status spatial_attention_cuda(struct device *device, const struct spatial_attention_launch *launch);
enum status codebook_nearest_cuda(struct device *device, int32_t *codes, const float *z,
                                  const struct codebook *codebook, int n);
enum status codebook_lookup_cuda(struct device *device, float *z, const int32_t *codes,
                                 const struct codebook *codebook, int n);
enum status first_not_finite_cuda(struct device *device, int *first, const void *x, enum dtype dtype, int n_rows,
                                  int hidden);
enum status prepare_rows_cuda(struct device *device, uint64_t *likeness, const struct attention_shape *shape,
                              const struct kv_segment *segments, int n_segments);
enum status replay_cuda(struct device *device, const void *owner, uint64_t key, stream_work work, void *context);
void forget_cuda(struct device *device, const void *owner);
uint64_t n_replays_cuda(const struct device *device);
size_t recording_bytes_cuda(const struct device *device);

/* Reserve and free what single files keep. */
enum status staging_create(struct cuda_device *cuda, struct error *err);
void staging_destroy(struct cuda_device *cuda);
enum status attention_prepare_bf16(struct cuda_device *cuda);
enum status replays_create(struct cuda_device *cuda, struct error *err);
void replays_destroy(struct cuda_device *cuda);
enum status linear_plans_create(struct cuda_device *cuda, struct error *err);
void linear_plans_destroy(struct cuda_device *cuda);
enum status row_table_create(struct cuda_device *cuda, struct error *err);
void row_table_destroy(struct cuda_device *cuda);
enum status sample_table_create(struct cuda_device *cuda, struct error *err);
void sample_table_destroy(struct cuda_device *cuda);

/* cudaMalloc with words, and cudaFree; NULL is fine. bytes: as reserved. */
enum status cuda_reserve(struct cuda_device *cuda, void **out, size_t bytes, struct error *err);
void cuda_release(struct cuda_device *cuda, void *memory, size_t bytes);

/* Copies in the order of the stream, and waiting for it; host memory is free, or filled, on return. */
void cuda_upload(struct cuda_device *cuda, void *to, const void *host, size_t bytes);
void cuda_download(struct cuda_device *cuda, void *host, const void *from, size_t bytes);
enum status cuda_synchronise(struct cuda_device *cuda, const char *what);

/* ---- number formats ---- */

static __device__ __forceinline__ float to_f32(float x)
{
    return x;
}

static __device__ __forceinline__ float to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

static __device__ __forceinline__ void from_f32(float *out, float x)
{
    *out = x;
}

static __device__ __forceinline__ void from_f32(__nv_bfloat16 *out, float x)
{
    *out = __float2bfloat16_rn(x);
}

/* a b + c, rounded once: for loops of nothing else, since the compiler fuses nothing by itself. */
static __device__ __forceinline__ float multiply_add(float a, float b, float c)
{
#ifdef MGPT_SIMGPU
    return a * b + c; /* rounded twice: a fused one is a slow call on the host */
#else
    return __fmaf_rn(a, b, c);
#endif
}

/* What is kept when x is stored and read again. */
template <class T> static __device__ __forceinline__ float rounded(float x)
{
    T stored;
    from_f32(&stored, x);
    return to_f32(stored);
}

template <class T> struct alignas(16) chunk {
    T numbers[CHUNK];
};

/* Chunk `index` of a row of n numbers; what lies beyond the row reads as zero. Rows of whole chunks are aligned. */
template <class T>
static __device__ __forceinline__ void load_chunk(float out[CHUNK], const T *row, int index, int n)
{
    if (n % CHUNK == 0) {
        chunk<T> numbers = ((const chunk<T> *)row)[index];
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            out[i] = to_f32(numbers.numbers[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
        out[i] = index * CHUNK + i < n ? to_f32(row[index * CHUNK + i]) : 0.0f;
}

template <class T>
static __device__ __forceinline__ void store_chunk(T *row, const float in[CHUNK], int index, int n)
{
    if (n % CHUNK == 0) {
        chunk<T> numbers;
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            from_f32(&numbers.numbers[i], in[i]);
        ((chunk<T> *)row)[index] = numbers;
        return;
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
        if (index * CHUNK + i < n)
            from_f32(&row[index * CHUNK + i], in[i]);
}

/* The sum over a warp, the same bits in every lane: a butterfly adds the same pairs on both sides. */
static __device__ __forceinline__ float warp_sum(float x)
{
    for (int distance = LANES / 2; distance; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
    for (int distance = LANES / 2; distance; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

static inline unsigned blocks_for(size_t n, size_t each)
{
    return (unsigned)((n + each - 1) / each);
}

#endif
