/*
 * group_norm.c - moments of each channel by parts of the picture, merged to groups.
 *
 * A part is a run of pixels; a thread walks it RUN pixels at a time, small enough to stay in the
 * caches: the mean of each channel first, then the squares around it, so that no large mean cancels
 * the variance. Runs and parts merge by Chan, Golub and LeVeque 1983 in f64, in order.
 */
#include "kernels/group_norm.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/vector.h"
#include "kernels/stream.h"

enum { RUN = 64, PART_PIXELS_MIN = 256 };

/* Of a channel over some pixels. */
struct moments {
    double mean, squares; /* squares: the sum of (x - mean)^2 */
};

struct job {
    const float *x;
    struct moments *parts; /* [n_parts, n_channels] */
    int n_pixels, n_channels, n_parts;
    enum code_path path;
};

static int count_parts(int n_pixels)
{
    int parts = (n_pixels + PART_PIXELS_MIN - 1) / PART_PIXELS_MIN;
    return parts < GROUP_NORM_PARTS ? parts : GROUP_NORM_PARTS;
}

size_t group_norm_workspace_bytes(int n_channels)
{
    return sizeof(struct moments) * GROUP_NORM_PARTS * n_channels;
}

/* into (of n pixels) becomes the moments of both; add has m pixels. */
static void merge(struct moments *into, double n, double mean, double squares, double m)
{
    double step = mean - into->mean, all = n + m;
    into->mean += step * (m / all);
    into->squares += squares + step * step * (n * m / all);
}

/* Adds n pixels to the moments of sixteen channels, which hold n_before pixels. */
VECTOR_INLINE void add_run(struct moments *moments, const float *x, int n_channels, int n,
                           int n_before)
{
    f32x16 sum = {0}, rest = {0}, squares = {0};
    for (int p = 0; p < n; p++)
        sum += load_f32(x + (size_t)p * n_channels);
    f32x16 mean = sum / (float)n;
    for (int p = 0; p < n; p++) {
        f32x16 d = load_f32(x + (size_t)p * n_channels) - mean;
        rest += d;
        squares += d * d;
    }
    /* The mean was rounded; what is left over corrects both moments. */
    for (int i = 0; i < LANES; i++) {
        double left = (double)rest[i] / n;
        merge(moments + i, n_before, mean[i] + left, squares[i] - n * left * left, n);
    }
}

VECTOR_INLINE void measure_body(const struct job *job, int part)
{
    int64_t first, last;
    stream_share(job->n_pixels, part, job->n_parts, &first, &last);
    struct moments *moments = job->parts + (size_t)part * job->n_channels;
    memset(moments, 0, sizeof(*moments) * job->n_channels);
    for (int64_t p = first; p < last; p += RUN) {
        int n = last - p < RUN ? (int)(last - p) : RUN;
        for (int c = 0; c < job->n_channels; c += LANES)
            add_run(moments + c, job->x + p * job->n_channels + c, job->n_channels, n,
                    (int)(p - first));
    }
}

FOR_EACH_PATH(measure, (const struct job *job, int part), (job, part))

static void measure_parts(void *context, int thread_index, int n_threads)
{
    struct job *job = context;
    int64_t first, last;
    stream_share(job->n_parts, thread_index, n_threads, &first, &last);
    for (int part = (int)first; part < last; part++)
        measure_of(job->path)(job, part);
}

/* The moments of channels [first, first + count) together: parts of a channel, then channels. */
static struct moments group_moments(const struct job *job, int first, int count)
{
    struct moments group = {0};
    for (int i = 0; i < count; i++) {
        struct moments channel = {0};
        for (int part = 0; part < job->n_parts; part++) {
            int64_t from, to;
            stream_share(job->n_pixels, part, job->n_parts, &from, &to);
            const struct moments *m = job->parts + (size_t)part * job->n_channels + first + i;
            merge(&channel, (double)from, m->mean, m->squares, (double)(to - from));
        }
        merge(&group, (double)job->n_pixels * i, channel.mean, channel.squares, job->n_pixels);
    }
    return group;
}

enum status group_norm(float *scale, float *shift, const float *x, const float *weight,
                       const float *bias, int n_pixels, int n_channels, int n_groups, float eps,
                       void *workspace, struct stream *stream)
{
    if (n_pixels < 1 || n_groups < 1 || n_channels < 1 || n_channels % n_groups ||
        n_channels % LANES)
        return STATUS_INVALID;
    struct job job = {.x = x,
                      .parts = workspace,
                      .n_pixels = n_pixels,
                      .n_channels = n_channels,
                      .n_parts = count_parts(n_pixels),
                      .path = stream_code_path(stream)};
    stream_parallel(stream, measure_parts, &job);
    int count = n_channels / n_groups;
    for (int first = 0; first < n_channels; first += count) {
        struct moments group = group_moments(&job, first, count);
        double deviation = sqrt(group.squares / ((double)n_pixels * count) + eps);
        for (int c = first; c < first + count; c++) {
            scale[c] = (float)(weight[c] / deviation);
            shift[c] = (float)(bias[c] - group.mean * (weight[c] / deviation));
        }
    }
    return STATUS_OK;
}
