/*
 * spatial_attention.c - attention over all pixels with a running maximum, on the products of
 * tile_f32.h.
 *
 * First the keys are transposed into panels, so that scores are a product like any other. Then each
 * thread takes QUERIES pixels at a time through all blocks of keys: scores of the block, their
 * maximum, weights exp(s - maximum), and sums of values, which shrink by exp(old maximum - new
 * maximum) when a block raises it.
 */
#include "kernels/codec_launch.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/cpu/tile_f32.h"
#include "kernels/cpu/vector.h"

enum { QUERIES = 24, KEYS = SPATIAL_ATTENTION_KEYS };

struct job {
    float *out;
    const float *q, *k, *v;
    float *keys; /* [n_pixels / TILE_F32_COLUMNS, n_channels, TILE_F32_COLUMNS]; absent keys are
                    zero */
    int n_pixels, n_channels;
    float scale;
    struct stream *stream;
    const struct tile_f32 *kernels;
    atomic_bool out_of_memory;
};

/* What a thread holds for its queries. */
struct block {
    float *scores;          /* [QUERIES, KEYS], then the weights */
    float *sums;            /* [QUERIES, n_channels] of weighted values */
    float maximum[QUERIES]; /* of the scores so far */
    float total[QUERIES];   /* of the weights so far */
};

static int count_panels(int n_pixels)
{
    return (n_pixels + TILE_F32_COLUMNS - 1) / TILE_F32_COLUMNS;
}

static void transpose_keys(void *context, int thread_index, int n_threads)
{
    struct job *job = context;
    int64_t first, last;
    stream_share(count_panels(job->n_pixels), thread_index, n_threads, &first, &last);
    for (int64_t panel = first; panel < last; panel++) {
        float *to = job->keys + panel * job->n_channels * TILE_F32_COLUMNS;
        const float *from = job->k + panel * TILE_F32_COLUMNS * job->n_channels;
        int64_t left = job->n_pixels - panel * TILE_F32_COLUMNS;
        int used = left < TILE_F32_COLUMNS ? (int)left : TILE_F32_COLUMNS;
        for (int c = 0; c < job->n_channels; c++, to += TILE_F32_COLUMNS) {
            for (int i = 0; i < used; i++)
                to[i] = from[(size_t)i * job->n_channels + c];
            for (int i = used; i < TILE_F32_COLUMNS; i++)
                to[i] = 0.0f;
        }
    }
}

/* KEYS scores times scale, and the largest of the first n; the others are absent keys: they become
 * -infinity. */
VECTOR_INLINE void scale_body(float *highest, float *scores, int n, float scale)
{
    for (int i = n; i < KEYS; i++)
        scores[i] = -INFINITY;
    f32x16 largest = load_f32(scores) * scale;
    for (int i = 0; i < KEYS; i += LANES) {
        f32x16 s = load_f32(scores + i) * scale;
        largest = max_lanes(s, largest);
        store_f32(scores + i, s);
    }
    *highest = largest_lane(largest);
}

/* Scores become exp(score - maximum), 0 for absent keys; *total is their sum: sixteen sums, then
 * the lanes. */
VECTOR_INLINE void weigh_body(float *total, float *scores, float maximum)
{
    f32x16 sum = {0};
    for (int i = 0; i < KEYS; i += LANES) {
        f32x16 weight = exp_lanes(load_f32(scores + i) - maximum);
        sum += weight;
        store_f32(scores + i, weight);
    }
    *total = sum_lanes(sum);
}

FOR_EACH_PATH(scale, (float *highest, float *scores, int n, float scale),
              (highest, scores, n, scale))
FOR_EACH_PATH(weigh, (float *total, float *scores, float maximum), (total, scores, maximum))

/* Scores of n_queries with the n keys from first_key on become weights; earlier sums shrink to the
 * new maximum. */
static void weigh_keys(const struct job *job, struct block *block, const float *q, int n_queries,
                       int first_key, int n)
{
    int n_channels = job->n_channels;
    enum code_path path = stream_code_path(job->stream);
    for (int i = 0; i < n; i += TILE_F32_COLUMNS)
        tile_f32_multiply(job->kernels, block->scores + i, KEYS, q, n_channels,
                          job->keys + (size_t)(first_key + i) * n_channels, TILE_F32_COLUMNS,
                          n_queries, TILE_F32_COLUMNS, n_channels, false);
    for (int r = 0; r < n_queries; r++) {
        float *scores = block->scores + r * KEYS;
        float highest, total;
        scale_of(path)(&highest, scores, n, job->scale);
        if (highest > block->maximum[r]) {
            float shrink = expf(block->maximum[r] - highest);
            block->total[r] *= shrink;
            for (int c = 0; c < n_channels; c++)
                block->sums[(size_t)r * n_channels + c] *= shrink;
            block->maximum[r] = highest;
        }
        weigh_of(path)(&total, scores, block->maximum[r]);
        block->total[r] += total;
    }
}

static void attend(const struct job *job, struct block *block, int first_query, int n_queries)
{
    int n_channels = job->n_channels;
    const float *q = job->q + (size_t)first_query * n_channels;
    for (int r = 0; r < n_queries; r++) {
        block->maximum[r] = -INFINITY;
        block->total[r] = 0.0f;
    }
    memset(block->sums, 0, sizeof(float) * n_queries * n_channels);
    for (int key = 0; key < job->n_pixels; key += KEYS) {
        int n = job->n_pixels - key < KEYS ? job->n_pixels - key : KEYS;
        weigh_keys(job, block, q, n_queries, key, n);
        const float *v = job->v + (size_t)key * n_channels;
        for (int c = 0; c < n_channels; c += TILE_F32_COLUMNS)
            tile_f32_multiply(job->kernels, block->sums + c, n_channels, block->scores, KEYS, v + c,
                              n_channels, n_queries,
                              n_channels - c < TILE_F32_COLUMNS ? TILE_F32_LANE : TILE_F32_COLUMNS,
                              n, true);
    }
    float *out = job->out + (size_t)first_query * n_channels;
    for (int r = 0; r < n_queries; r++)
        for (int c = 0; c < n_channels; c++)
            out[(size_t)r * n_channels + c] =
                block->sums[(size_t)r * n_channels + c] / block->total[r];
}

static void attend_share(void *context, int thread_index, int n_threads)
{
    struct job *job = context;
    struct block block;
    size_t score_bytes = sizeof(float) * QUERIES * KEYS;
    char *memory = stream_scratch(job->stream, thread_index,
                                  score_bytes + sizeof(float) * QUERIES * job->n_channels);
    if (!memory) {
        job->out_of_memory = true;
        return;
    }
    block.scores = (float *)memory;
    block.sums = (float *)(memory + score_bytes);
    int64_t first, last;
    stream_share(job->n_pixels, thread_index, n_threads, &first, &last);
    for (int64_t query = first; query < last; query += QUERIES)
        attend(job, &block, (int)query, last - query < QUERIES ? (int)(last - query) : QUERIES);
}

enum status spatial_attention_cpu(const struct spatial_attention_launch *launch,
                                  struct stream *stream)
{
    struct job job = {.out = launch->out,
                      .q = launch->q,
                      .k = launch->k,
                      .v = launch->v,
                      .keys = launch->keys,
                      .n_pixels = launch->n_pixels,
                      .n_channels = launch->n_channels,
                      .scale = launch->scale,
                      .stream = stream,
                      .kernels = tile_f32_of(stream)};
    stream_parallel(stream, transpose_keys, &job);
    stream_parallel(stream, attend_share, &job);
    return job.out_of_memory ? STATUS_NOMEM : STATUS_OK;
}
