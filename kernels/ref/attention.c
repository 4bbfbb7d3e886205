/*
 * attention.c - the f32 twin: each row and head alone, split after split of 256 positions, merged
 * in order.
 */
#include <math.h>

#include "kernels/attention_launch.h"
#include "kernels/kv_layout.h"

/* The result of the positions so far, before division: largest score, sum of exponentials, weighted
 * values. */
struct partial {
    float largest, sum, values[HEAD_DIM_MAX];
};

static void block_scores(float *restrict scores, const float *restrict q,
                         const float *restrict keys, int head_dim)
{
    for (int j = 0; j < KV_BLOCK_TOKENS; j++)
        scores[j] = 0;
    for (int i = 0; i < head_dim; i++)
        for (int j = 0; j < KV_BLOCK_TOKENS; j++)
            scores[j] += q[i] * keys[i * KV_BLOCK_TOKENS + j];
}

static void add_values(float *restrict sum, const float *restrict values, float weight,
                       int head_dim)
{
    for (int i = 0; i < head_dim; i++)
        sum[i] += weight * values[i];
}

/* Positions [first, first + n), n <= KV_SPLIT_TOKENS. */
static void reduce_split(struct partial *out, const struct attention_launch *l,
                         const struct kv_segment *s, int kv_head, const float *q, int first, int n)
{
    const int d = l->shape->head_dim;
    float scores[KV_SPLIT_TOKENS];
    const float *values[KV_SPLIT_TOKENS / KV_BLOCK_TOKENS];
    const float scale = 1.0f / sqrtf((float)d);
    *out = (struct partial){.largest = -INFINITY};
    for (int b = 0; b * KV_BLOCK_TOKENS < n; b++) {
        int32_t block = s->blocks[first / KV_BLOCK_TOKENS + b];
        values[b] = kv_values_f32(l->kv, l->shape, block, kv_head);
        block_scores(scores + b * KV_BLOCK_TOKENS, q, kv_keys_f32(l->kv, l->shape, block, kv_head),
                     d);
    }
    for (int j = 0; j < n; j++) {
        scores[j] *= scale;
        out->largest = scores[j] > out->largest ? scores[j] : out->largest;
    }
    for (int j = 0; j < n; j++) {
        float weight = expf(scores[j] - out->largest);
        out->sum += weight;
        add_values(out->values, values[j / KV_BLOCK_TOKENS] + (j % KV_BLOCK_TOKENS) * d, weight, d);
    }
}

static void merge(struct partial *total, const struct partial *next, int head_dim)
{
    float largest = total->largest > next->largest ? total->largest : next->largest;
    float a = expf(total->largest - largest), b = expf(next->largest - largest);
    total->largest = largest;
    total->sum = total->sum * a + next->sum * b;
    for (int i = 0; i < head_dim; i++)
        total->values[i] = total->values[i] * a + next->values[i] * b;
}

static void attend(const struct attention_launch *l, const struct kv_segment *s, int row_of_segment,
                   int head)
{
    const struct attention_shape *shape = l->shape;
    const int d = shape->head_dim, kv_head = head / (shape->n_heads / shape->n_kv_heads);
    size_t row = (size_t)(s->first_row + row_of_segment);
    const float *q =
        (const float *)l->qkv + row * qkv_row_numbers(shape) + (size_t)head * (size_t)d;
    float *y = (float *)l->y + (row * (size_t)shape->n_heads + (size_t)head) * (size_t)d;
    int n_positions = s->start + row_of_segment + 1;
    struct partial total, next;
    for (int first = 0; first < n_positions; first += KV_SPLIT_TOKENS) {
        int n = n_positions - first < KV_SPLIT_TOKENS ? n_positions - first : KV_SPLIT_TOKENS;
        reduce_split(first ? &next : &total, l, s, kv_head, q, first, n);
        if (first)
            merge(&total, &next, d);
    }
    for (int i = 0; i < d; i++)
        y[i] = total.values[i] / total.sum;
}

static void attend_share(void *context, int thread_index, int n_threads)
{
    const struct attention_launch *l = context;
    /* Every n-th head and row: rows of a long segment cost more the later they are. */
    int unit = 0;
    for (int i = 0; i < l->n_segments; i++)
        for (int r = 0; r < l->segments[i].n_rows; r++)
            for (int h = 0; h < l->shape->n_heads; h++)
                if (unit++ % n_threads == thread_index)
                    attend(l, &l->segments[i], r, h);
}

enum status attention_ref(const struct attention_launch *launch, struct stream *stream)
{
    stream_parallel(stream, attend_share, (void *)(uintptr_t)launch);
    return STATUS_OK;
}
