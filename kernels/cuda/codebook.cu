/*
 * codebook.cu - nearest entries: a block compares VECTORS vectors with all panels of entries, a lane an entry of a
 * panel, the warps take panels in turn. Each product is one chain over the dimensions.
 */
#include "kernels/cuda/cuda.cuh"

#include <math.h>

enum { VECTORS = 8, NEAREST_THREADS = 256, WARPS = NEAREST_THREADS / LANES, PANEL = LANES, LOOKUP_THREADS = 256 };

struct nearest {
    float distance;
    int32_t code;
};

static __device__ __forceinline__ void offer(struct nearest *best, float distance, int32_t code)
{
    if (distance < best->distance || (distance == best->distance && code < best->code)) {
        best->distance = distance;
        best->code = code;
    }
}

static size_t shared_bytes(int n_dims)
{
    return sizeof(float) * VECTORS * (size_t)n_dims + sizeof(struct nearest) * VECTORS * NEAREST_THREADS;
}

/* A z that is not finite is less than no distance: code 0 stays. */
static __global__ void __launch_bounds__(NEAREST_THREADS)
    nearest_kernel(int32_t *codes, const float *z, const float *panels, const float *squares, int n, int n_dims,
                   int n_panels)
{
    DYNAMIC_SHARED(shared);
    struct nearest *found = (struct nearest *)shared; /* [VECTORS, NEAREST_THREADS] */
    float *vectors = (float *)(found + VECTORS * NEAREST_THREADS);
    const int first = (int)blockIdx.x * VECTORS, lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    for (int i = (int)threadIdx.x; i < VECTORS * n_dims; i += NEAREST_THREADS)
        vectors[i] = first + i / n_dims < n ? z[(size_t)first * (size_t)n_dims + (size_t)i] : 0.0f;
    __syncthreads();
    struct nearest best[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        best[i] = {INFINITY, 0};
    for (int panel = warp; panel < n_panels; panel += WARPS) {
        const float *entry = panels + (size_t)panel * (size_t)n_dims * PANEL + (size_t)lane;
        float products[VECTORS] = {};
        for (int d = 0; d < n_dims; d++) {
            const float e = entry[(size_t)d * PANEL];
#pragma unroll
            for (int i = 0; i < VECTORS; i++)
                products[i] = multiply_add(vectors[i * n_dims + d], e, products[i]);
        }
        const int32_t code = panel * PANEL + lane;
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            offer(&best[i], squares[code] - 2.0f * products[i], code);
    }
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
        found[i * NEAREST_THREADS + (int)threadIdx.x] = best[i];
    __syncthreads();
    if ((int)threadIdx.x >= VECTORS || first + (int)threadIdx.x >= n)
        return;
    struct nearest *mine = found + (int)threadIdx.x * NEAREST_THREADS;
    for (int i = 1; i < NEAREST_THREADS; i++)
        offer(&mine[0], mine[i].distance, mine[i].code);
    codes[first + (int)threadIdx.x] = mine[0].code;
}

enum status codebook_nearest_cuda(struct device *device, int32_t *codes, const float *z,
                                  const struct codebook *codebook, int n)
{
    struct cuda_device *cuda = cuda_of(device);
    const size_t bytes = shared_bytes(codebook->n_dims);
    if (n == 0)
        return STATUS_OK;
    enum status st = cuda_note(
        cuda, cudaFuncSetAttribute(nearest_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "shared memory for the search of codes");
    if (st != STATUS_OK)
        return st;
    LAUNCH(nearest_kernel, dim3(blocks_for((size_t)n, VECTORS)), dim3(NEAREST_THREADS), bytes, cuda->stream, codes, z,
           codebook->panels, codebook->squares, n, codebook->n_dims, codebook->n_panels);
    return cuda_launched(cuda, "codebook_nearest");
}

static __global__ void __launch_bounds__(LOOKUP_THREADS)
    lookup_kernel(float *z, const int32_t *codes, const float *panels, int n, int n_dims)
{
    const size_t at = (size_t)blockIdx.x * LOOKUP_THREADS + threadIdx.x;
    if (at >= (size_t)n * (size_t)n_dims)
        return;
    const size_t code = (size_t)codes[at / (size_t)n_dims], d = at % (size_t)n_dims;
    z[at] = panels[(code / PANEL * (size_t)n_dims + d) * PANEL + code % PANEL];
}

enum status codebook_lookup_cuda(struct device *device, float *z, const int32_t *codes,
                                 const struct codebook *codebook, int n)
{
    struct cuda_device *cuda = cuda_of(device);
    const size_t bytes = (size_t)n * sizeof(*codes), n_numbers = (size_t)n * (size_t)codebook->n_dims;
    if (n == 0)
        return STATUS_OK;
    if (bytes > CUDA_TABLE_BYTES)
        return STATUS_NOMEM;
    cuda_upload(cuda, cuda->ids, codes, bytes);
    LAUNCH(lookup_kernel, dim3(blocks_for(n_numbers, LOOKUP_THREADS)), dim3(LOOKUP_THREADS), 0, cuda->stream, z,
           cuda->ids, codebook->panels, n, codebook->n_dims);
    return cuda_launched(cuda, "codebook_lookup");
}
