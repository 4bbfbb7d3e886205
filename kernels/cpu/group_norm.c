/*
 * group_norm.c - moments of each channel by parts of the picture, merged to groups.
 *
 * A part is a run of pixels; a thread walks it RUN pixels at a time, small enough to stay in the
 * caches: the mean of each channel first, then the squares around it, so that no large mean cancels
 * the variance. Runs and parts merge by Chan, Golub and LeVeque 1983 in f64, in order.
 */
#include "kernels/codec_launch.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/vector.h"

enum { RUN = 64 };

struct job {
    const struct group_norm_launch *launch;
    enum code_path path;
};

/* into (of n pixels) becomes the moments of both; add has m pixels. */
static void merge(struct group_norm_moments *into, double n, double mean, double squares, double m)
{
    double step = mean - into->mean, all = n + m;
    into->mean += step * (m / all);
    into->squares += squares + step * step * (n * m / all);
}

/* Adds n pixels to the moments of sixteen channels, which hold n_before pixels. */
VECTOR_INLINE void add_run(struct group_norm_moments *moments, const float *x, int n_channels,
                           int n, int n_before)
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

VECTOR_INLINE void measure_body(const struct group_norm_launch *job, int part)
{
    int64_t first, last;
    stream_share(job->n_pixels, part, job->n_parts, &first, &last);
    struct group_norm_moments *moments = job->parts + (size_t)part * job->n_channels;
    memset(moments, 0, sizeof(*moments) * job->n_channels);
    for (int64_t p = first; p < last; p += RUN) {
        int n = last - p < RUN ? (int)(last - p) : RUN;
        for (int c = 0; c < job->n_channels; c += LANES)
            add_run(moments + c, job->x + p * job->n_channels + c, job->n_channels, n,
                    (int)(p - first));
    }
}

FOR_EACH_PATH(measure, (const struct group_norm_launch *job, int part), (job, part))

static void measure_parts(void *context, int thread_index, int n_threads)
{
    struct job *job = context;
    int64_t first, last;
    stream_share(job->launch->n_parts, thread_index, n_threads, &first, &last);
    for (int part = (int)first; part < last; part++)
        measure_of(job->path)(job->launch, part);
}

/* The moments of channels [first, first + count) together: parts of a channel, then channels. */
static struct group_norm_moments group_moments(const struct group_norm_launch *job, int first,
                                               int count)
{
    struct group_norm_moments group = {0};
    for (int i = 0; i < count; i++) {
        struct group_norm_moments channel = {0};
        for (int part = 0; part < job->n_parts; part++) {
            int64_t from, to;
            stream_share(job->n_pixels, part, job->n_parts, &from, &to);
            const struct group_norm_moments *m =
                job->parts + (size_t)part * job->n_channels + first + i;
            merge(&channel, (double)from, m->mean, m->squares, (double)(to - from));
        }
        merge(&group, (double)job->n_pixels * i, channel.mean, channel.squares, job->n_pixels);
    }
    return group;
}

enum status group_norm_cpu(const struct group_norm_launch *launch, struct stream *stream)
{
    struct job job = {launch, stream_code_path(stream)};
    stream_parallel(stream, measure_parts, &job);
    int count = launch->n_channels / launch->n_groups;
    for (int first = 0; first < launch->n_channels; first += count) {
        struct group_norm_moments group = group_moments(launch, first, count);
        double deviation = sqrt(group.squares / ((double)launch->n_pixels * count) + launch->eps);
        for (int c = first; c < first + count; c++) {
            launch->scale[c] = (float)(launch->weight[c] / deviation);
            launch->shift[c] =
                (float)(launch->bias[c] - group.mean * (launch->weight[c] / deviation));
        }
    }
    return STATUS_OK;
}
