/*
 * elementwise.cu - embedding, rmsnorm, add and silu_mul: rows apart, chunks of 16 bytes a thread.
 */
#include "kernels/cuda/cuda.cuh"

#include <math.h>

enum { ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / LANES, FLAT_THREADS = 256 };

template <class T>
static __global__ void __launch_bounds__(ROW_THREADS)
    embedding_kernel(T *y, const int32_t *ids, const T *table, int hidden)
{
    const T *from = table + (size_t)ids[blockIdx.x] * (size_t)hidden;
    T *to = y + (size_t)blockIdx.x * (size_t)hidden;
    for (int i = (int)threadIdx.x; i * CHUNK < hidden; i += ROW_THREADS) {
        float numbers[CHUNK];
        load_chunk(numbers, from, i, hidden);
        store_chunk(to, numbers, i, hidden);
    }
}

template <class T>
static void launch_embedding(struct cuda_device *cuda, void *y, const void *table, int n_rows, int hidden)
{
    LAUNCH(embedding_kernel<T>, dim3((unsigned)n_rows), dim3(ROW_THREADS), 0, cuda->stream, (T *)y, cuda->ids,
           (const T *)table, hidden);
}

enum status embedding_cuda(struct device *device, void *y, const int32_t *ids, const void *table, enum dtype dtype,
                           int n_rows, int hidden)
{
    struct cuda_device *cuda = cuda_of(device);
    size_t bytes = (size_t)n_rows * sizeof(*ids);
    if (n_rows == 0)
        return STATUS_OK;
    if (bytes > CUDA_TABLE_BYTES)
        return STATUS_NOMEM;
    cuda_upload(cuda, cuda->ids, ids, bytes);
    if (dtype == DTYPE_F32)
        launch_embedding<float>(cuda, y, table, n_rows, hidden);
    else
        launch_embedding<__nv_bfloat16>(cuda, y, table, n_rows, hidden);
    return cuda_launched(cuda, "embedding");
}

/* The sum over the block in a fixed order, in every thread; shared: [ROW_WARPS]. */
static __device__ __forceinline__ float block_sum(float x, float *shared)
{
    x = warp_sum(x);
    if (threadIdx.x % LANES == 0)
        shared[threadIdx.x / LANES] = x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < ROW_WARPS; i++)
        sum += shared[i];
    return sum;
}

/* delta: NULL, or added to x first. x may be y. Each thread writes only what it alone has read. */
template <class T>
static __global__ void __launch_bounds__(ROW_THREADS)
    rmsnorm_kernel(T *y, const T *x, T *x_updated, const T *delta, const float *weight, int hidden, float eps)
{
    DYNAMIC_SHARED(shared);
    size_t at = (size_t)blockIdx.x * (size_t)hidden;
    float squares = 0, numbers[CHUNK], more[CHUNK];
    for (int i = (int)threadIdx.x; i * CHUNK < hidden; i += ROW_THREADS) {
        load_chunk(numbers, x + at, i, hidden);
        if (delta) {
            load_chunk(more, delta + at, i, hidden);
#pragma unroll
            for (int j = 0; j < CHUNK; j++)
                numbers[j] = rounded<T>(numbers[j] + more[j]);
            store_chunk(x_updated + at, numbers, i, hidden);
        }
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
            squares += numbers[j] * numbers[j];
    }
    float scale = 1.0f / sqrtf(block_sum(squares, (float *)shared) / (float)hidden + eps);
    for (int i = (int)threadIdx.x; i * CHUNK < hidden; i += ROW_THREADS) {
        load_chunk(numbers, x + at, i, hidden);
        load_chunk(more, weight, i, hidden);
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
            numbers[j] = numbers[j] * scale * more[j];
        store_chunk(y + at, numbers, i, hidden);
    }
}

template <class T> static void launch_rmsnorm(struct cuda_device *cuda, const struct rmsnorm_launch *l, int n_rows)
{
    LAUNCH(rmsnorm_kernel<T>, dim3((unsigned)n_rows), dim3(ROW_THREADS), ROW_WARPS * sizeof(float), cuda->stream,
           (T *)l->y, (const T *)l->x, (T *)l->x_updated, (const T *)l->delta, l->weight, l->hidden, l->eps);
}

enum status rmsnorm_cuda(struct device *device, const struct rmsnorm_launch *launch, enum dtype dtype, int n_rows)
{
    struct cuda_device *cuda = cuda_of(device);
    if (n_rows == 0)
        return STATUS_OK;
    if (dtype == DTYPE_F32)
        launch_rmsnorm<float>(cuda, launch, n_rows);
    else
        launch_rmsnorm<__nv_bfloat16>(cuda, launch, n_rows);
    return cuda_launched(cuda, "rmsnorm");
}

/* Rows lie without gaps, so all of them are one row of n numbers. */
template <class T> static __global__ void __launch_bounds__(FLAT_THREADS) add_kernel(T *x, const T *delta, size_t n)
{
    size_t first = ((size_t)blockIdx.x * FLAT_THREADS + threadIdx.x) * CHUNK;
    if (first >= n)
        return;
    int here = n - first < CHUNK ? (int)(n - first) : CHUNK;
    float numbers[CHUNK], more[CHUNK];
    load_chunk(numbers, x + first, 0, here);
    load_chunk(more, delta + first, 0, here);
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
        numbers[j] += more[j];
    store_chunk(x + first, numbers, 0, here);
}

template <class T> static void launch_add(struct cuda_device *cuda, const struct add_launch *l, size_t n)
{
    LAUNCH(add_kernel<T>, dim3(blocks_for(n, FLAT_THREADS * CHUNK)), dim3(FLAT_THREADS), 0, cuda->stream, (T *)l->x,
           (const T *)l->delta, n);
}

enum status add_cuda(struct device *device, const struct add_launch *launch, enum dtype dtype, int n_rows)
{
    struct cuda_device *cuda = cuda_of(device);
    size_t n = (size_t)n_rows * (size_t)launch->hidden;
    if (n == 0)
        return STATUS_OK;
    if (dtype == DTYPE_F32)
        launch_add<float>(cuda, launch, n);
    else
        launch_add<__nv_bfloat16>(cuda, launch, n);
    return cuda_launched(cuda, "add");
}

template <class T>
static __global__ void __launch_bounds__(FLAT_THREADS) silu_mul_kernel(T *y, const T *gate_up, int inter)
{
    int i = (int)(blockIdx.y * FLAT_THREADS + threadIdx.x);
    if (i * CHUNK >= inter)
        return;
    const T *row = gate_up + 2 * (size_t)blockIdx.x * (size_t)inter;
    float gate[CHUNK], up[CHUNK];
    load_chunk(gate, row, i, inter);
    load_chunk(up, row + inter, i, inter);
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
        gate[j] = gate[j] / (1.0f + expf(-gate[j])) * up[j];
    store_chunk(y + (size_t)blockIdx.x * (size_t)inter, gate, i, inter);
}

template <class T> static void launch_silu_mul(struct cuda_device *cuda, const struct silu_mul_launch *l, int n_rows)
{
    dim3 grid((unsigned)n_rows, blocks_for((size_t)l->inter, FLAT_THREADS * CHUNK));
    LAUNCH(silu_mul_kernel<T>, grid, dim3(FLAT_THREADS), 0, cuda->stream, (T *)l->y, (const T *)l->gate_up, l->inter);
}

enum status silu_mul_cuda(struct device *device, const struct silu_mul_launch *launch, enum dtype dtype, int n_rows)
{
    struct cuda_device *cuda = cuda_of(device);
    if (n_rows == 0)
        return STATUS_OK;
    if (dtype == DTYPE_F32)
        launch_silu_mul<float>(cuda, launch, n_rows);
    else
        launch_silu_mul<__nv_bfloat16>(cuda, launch, n_rows);
    return cuda_launched(cuda, "silu_mul");
}
