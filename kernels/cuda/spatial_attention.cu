/*
 * spatial_attention.cu - attention over all pixels with a running maximum, f32; keys are transposed first, so that
 * neighbouring threads read neighbouring keys.
 *
 * A block takes QUERIES pixels through all blocks of KEYS keys, a thread a key: scores of the block, then a warp a query
 * finds maximum and weights, then a thread a channel adds the weighted values up in the order of the keys.
 */
#include "kernels/cuda/cuda.cuh"

#include <math.h>

enum { QUERIES = 8, KEYS = SPATIAL_ATTENTION_KEYS, TRANSPOSE_THREADS = 256, PANEL = 32 };

static size_t shared_bytes(int n_channels)
{
    return sizeof(float) * (2 * QUERIES * (size_t)n_channels + QUERIES * KEYS + 2 * QUERIES);
}

struct arguments {
    float *out;
    const float *q, *keys, *v; /* keys: [n_channels][stride] */
    int n_pixels, n_channels, stride;
    float scale;
};

static __global__ void __launch_bounds__(TRANSPOSE_THREADS)
    transpose_kernel(float *to, const float *from, int n_pixels, int n_channels, int stride)
{
    const int pixel = (int)(blockIdx.x * TRANSPOSE_THREADS + threadIdx.x), channel = (int)blockIdx.y;
    if (pixel < n_pixels)
        to[(size_t)channel * (size_t)stride + (size_t)pixel] =
            from[(size_t)pixel * (size_t)n_channels + (size_t)channel];
}

/* What the threads of a block share. */
struct view {
    float *q, *sums; /* [QUERIES, n_channels] */
    float *weights;  /* [QUERIES, KEYS] scores, then weights */
    float *maximum;  /* [QUERIES] of the scores so far; then by how much earlier sums shrink */
    float *total;    /* [QUERIES] of the weights so far */
};

/* The score of the thread's key with each query; absent keys have none. */
static __device__ void score_key(const struct arguments &a, const struct view &s, int key)
{
    float sums[QUERIES] = {};
    for (int c = 0; key < a.n_pixels && c < a.n_channels; c++) {
        const float k = a.keys[(size_t)c * (size_t)a.stride + (size_t)key];
#pragma unroll
        for (int i = 0; i < QUERIES; i++)
            sums[i] = multiply_add(s.q[i * a.n_channels + c], k, sums[i]);
    }
#pragma unroll
    for (int i = 0; i < QUERIES; i++)
        s.weights[i * KEYS + (int)threadIdx.x] = key < a.n_pixels ? sums[i] * a.scale : -INFINITY;
}

/* A warp's query: scores to weights. Returns by how much earlier sums shrink; *maximum and *total are each lane's. */
static __device__ float weigh(float *weights, float *maximum, float *total)
{
    const int lane = (int)threadIdx.x % LANES;
    float highest = *maximum, sum = 0;
    for (int i = lane; i < KEYS; i += LANES)
        highest = fmaxf(highest, weights[i]);
    highest = warp_max(highest);
    for (int i = lane; i < KEYS; i += LANES) {
        const float weight = expf(weights[i] - highest);
        weights[i] = weight;
        sum += weight;
    }
    const float shrink = expf(*maximum - highest);
    *total = *total * shrink + warp_sum(sum);
    *maximum = highest;
    return shrink;
}

/* sums = sums * shrink + weights times values, in the order of the keys. */
static __device__ void add_values(const struct arguments &a, const struct view &s, int first_key)
{
    const int n = a.n_pixels - first_key < KEYS ? a.n_pixels - first_key : KEYS;
    for (int c = (int)threadIdx.x; c < a.n_channels; c += KEYS) {
        float sums[QUERIES];
#pragma unroll
        for (int i = 0; i < QUERIES; i++)
            sums[i] = s.sums[i * a.n_channels + c] * s.maximum[i];
        for (int key = 0; key < n; key++) {
            const float v = a.v[(size_t)(first_key + key) * (size_t)a.n_channels + (size_t)c];
#pragma unroll
            for (int i = 0; i < QUERIES; i++)
                sums[i] = multiply_add(s.weights[i * KEYS + key], v, sums[i]);
        }
#pragma unroll
        for (int i = 0; i < QUERIES; i++)
            s.sums[i * a.n_channels + c] = sums[i];
    }
}

static __global__ void __launch_bounds__(KEYS) spatial_attention_kernel(struct arguments a)
{
    DYNAMIC_SHARED(shared);
    float *floats = (float *)shared;
    const struct view s = {floats, floats + QUERIES * a.n_channels, floats + 2 * QUERIES * a.n_channels,
                           floats + 2 * QUERIES * a.n_channels + QUERIES * KEYS,
                           floats + 2 * QUERIES * a.n_channels + QUERIES * KEYS + QUERIES};
    const int first_query = (int)blockIdx.x * QUERIES, warp = (int)threadIdx.x / LANES;
    for (int i = (int)threadIdx.x; i < QUERIES * a.n_channels; i += KEYS) {
        const size_t at = (size_t)first_query * (size_t)a.n_channels + (size_t)i;
        s.q[i] = at < (size_t)a.n_pixels * (size_t)a.n_channels ? a.q[at] : 0.0f;
        s.sums[i] = 0;
    }
    float maximum = -INFINITY, total = 0; /* of the warp's query */
    __syncthreads();
    for (int key = 0; key < a.n_pixels; key += KEYS) {
        score_key(a, s, key + (int)threadIdx.x);
        __syncthreads();
        const float shrink = weigh(s.weights + warp * KEYS, &maximum, &total);
        if (threadIdx.x % LANES == 0)
            s.maximum[warp] = shrink;
        __syncthreads();
        add_values(a, s, key);
        __syncthreads();
    }
    if (threadIdx.x % LANES == 0)
        s.total[warp] = total;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < QUERIES * a.n_channels; i += KEYS)
        if (first_query + i / a.n_channels < a.n_pixels)
            a.out[(size_t)first_query * (size_t)a.n_channels + (size_t)i] = s.sums[i] / s.total[i / a.n_channels];
}

enum status spatial_attention_cuda(struct device *device, const struct spatial_attention_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    const int stride = (l->n_pixels + PANEL - 1) / PANEL * PANEL;
    const size_t bytes = shared_bytes(l->n_channels);
    struct arguments a = {l->out, l->q, l->keys, l->v, l->n_pixels, l->n_channels, stride, l->scale};
    static_assert(QUERIES * LANES == KEYS, "a warp a query, a thread a key");
    enum status st = cuda_note(cuda,
                               cudaFuncSetAttribute(spatial_attention_kernel,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                               "shared memory for the attention of pixels");
    if (st != STATUS_OK)
        return st;
    dim3 grid(blocks_for((size_t)l->n_pixels, TRANSPOSE_THREADS), (unsigned)l->n_channels);
    LAUNCH(transpose_kernel, grid, dim3(TRANSPOSE_THREADS), 0, cuda->stream, l->keys, l->k, l->n_pixels, l->n_channels,
           stride);
    LAUNCH(spatial_attention_kernel, dim3(blocks_for((size_t)l->n_pixels, QUERIES)), dim3(KEYS), bytes, cuda->stream,
           a);
    return cuda_launched(cuda, "spatial_attention");
}
