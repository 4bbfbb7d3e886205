/*
 * group_norm.cu - moments of each channel by parts of the picture in f64, merged to groups in order.
 *
 * Parts are cut by the number of pixels alone. In a part MEASURE_LANES threads share a channel, each every
 * MEASURE_LANES-th pixel; their sums are added in order: the mean first, then the squares around it.
 */
#include "kernels/cuda/cuda.cuh"

enum { MEASURE_CHANNELS = 32, MEASURE_LANES = 8, MEASURE_THREADS = MEASURE_CHANNELS * MEASURE_LANES, GROUP_THREADS = 32 };

typedef struct group_norm_moments moments;

/* The same cut as stream_share(). */
static __device__ __forceinline__ long long part_start(int n_pixels, int part, int n_parts)
{
    return (long long)n_pixels * part / n_parts;
}

/* The sum over the lanes of a channel, in order, in each of them; shared: [MEASURE_THREADS]. */
static __device__ double sum_of_lanes(double x, double *shared)
{
    __syncthreads(); /* the last sum has been read */
    shared[threadIdx.x] = x;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < MEASURE_LANES; i++)
        sum += shared[i * MEASURE_CHANNELS + (int)threadIdx.x % MEASURE_CHANNELS];
    return sum;
}

static __global__ void __launch_bounds__(MEASURE_THREADS)
    measure_kernel(moments *parts, const float *x, int n_pixels, int n_channels, int n_parts)
{
    DYNAMIC_SHARED(shared);
    const int part = (int)blockIdx.x, lane = (int)threadIdx.x / MEASURE_CHANNELS;
    const int channel = (int)blockIdx.y * MEASURE_CHANNELS + (int)threadIdx.x % MEASURE_CHANNELS;
    const long long first = part_start(n_pixels, part, n_parts), last = part_start(n_pixels, part + 1, n_parts);
    const bool is_one = channel < n_channels;
    double sum = 0, squares = 0;
    for (long long p = first + lane; is_one && p < last; p += MEASURE_LANES)
        sum += (double)x[p * n_channels + channel];
    const double mean = sum_of_lanes(sum, (double *)shared) / (double)(last - first);
    for (long long p = first + lane; is_one && p < last; p += MEASURE_LANES) {
        const double d = (double)x[p * n_channels + channel] - mean;
        squares += d * d;
    }
    squares = sum_of_lanes(squares, (double *)shared);
    if (is_one && lane == 0) {
        const moments m = {mean, squares};
        parts[(size_t)part * (size_t)n_channels + (size_t)channel] = m;
    }
}

/* into (of n pixels) becomes the moments of both; add has m pixels. */
static __device__ __forceinline__ void merge(moments *into, double n, const moments &add, double m)
{
    const double step = add.mean - into->mean, all = n + m;
    into->mean += step * (m / all);
    into->squares += add.squares + step * step * (n * m / all);
}

/* A block a group: each thread merges the parts of every GROUP_THREADS-th channel into the first part's place, the
 * first thread merges the channels. */
static __global__ void __launch_bounds__(GROUP_THREADS)
    merge_kernel(float *scale, float *shift, moments *parts, const float *weight, const float *bias, int n_pixels,
                 int n_channels, int n_parts, int count, float eps)
{
    DYNAMIC_SHARED(shared);
    moments *group = (moments *)shared;
    const int first = (int)blockIdx.x * count;
    for (int c = first + (int)threadIdx.x; c < first + count; c += GROUP_THREADS) {
        moments channel = parts[c];
        for (int part = 1; part < n_parts; part++) {
            const long long from = part_start(n_pixels, part, n_parts), to = part_start(n_pixels, part + 1, n_parts);
            merge(&channel, (double)from, parts[(size_t)part * (size_t)n_channels + (size_t)c], (double)(to - from));
        }
        parts[c] = channel;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        *group = parts[first];
        for (int i = 1; i < count; i++)
            merge(group, (double)n_pixels * i, parts[first + i], (double)n_pixels);
    }
    __syncthreads();
    const double deviation = sqrt(group->squares / ((double)n_pixels * count) + (double)eps);
    for (int c = first + (int)threadIdx.x; c < first + count; c += GROUP_THREADS) {
        const double factor = (double)weight[c] / deviation;
        scale[c] = (float)factor;
        shift[c] = (float)((double)bias[c] - group->mean * factor);
    }
}

enum status group_norm_cuda(struct device *device, const struct group_norm_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    dim3 grid((unsigned)l->n_parts, blocks_for((size_t)l->n_channels, MEASURE_CHANNELS));
    LAUNCH(measure_kernel, grid, dim3(MEASURE_THREADS), MEASURE_THREADS * sizeof(double), cuda->stream, l->parts, l->x,
           l->n_pixels, l->n_channels, l->n_parts);
    LAUNCH(merge_kernel, dim3((unsigned)l->n_groups), dim3(GROUP_THREADS), sizeof(moments), cuda->stream, l->scale,
           l->shift, l->parts, l->weight, l->bias, l->n_pixels, l->n_channels, l->n_parts, l->n_channels / l->n_groups,
           l->eps);
    return cuda_launched(cuda, "group_norm");
}
