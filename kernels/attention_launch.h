/*
 * attention_launch.h - the arguments of attention() and of its halves, which fill the cache and
 * read it, shared by dispatch, f32 twin and fast version.
 */
#ifndef MGPT_KERNELS_ATTENTION_LAUNCH_H
#define MGPT_KERNELS_ATTENTION_LAUNCH_H

#include <stdbool.h>

#include "kernels/attention.h"

struct rope_table {
    struct rope_options options;
    struct stream *stream;
    float *values; /* [n_positions][cosines of head_dim / 2, then sines], and 64 bytes that may be
                      read past the end */
    size_t bytes;
};

struct attention_launch {
    void *y, *qkv;
    const struct attention_shape *shape;
    const struct qk_norm *norm;
    const struct rope_table *rope;
    const struct kv_segment *segments;
    int n_segments;
    const struct kv_layer *kv;
};

/* A row of a segment: everything the row's own computation needs to know. */
struct store_row {
    const struct kv_segment *segment;
    int row;      /* in qkv */
    int position; /* in its sequence */
    int newest;   /* the last row of its segment */
};

/* Row r of a segment. */
static inline struct store_row store_row_of(const struct kv_segment *s, int r)
{
    return (struct store_row){s, s->first_row + r, s->start + r, r + 1 == s->n_rows};
}

/* One row, all heads. */
void store_row_ref(const struct attention_launch *launch, const struct store_row *row);

/* One row, some kv heads and the queries that belong to them. */
void store_row_cpu(const struct attention_launch *launch, const struct store_row *row, int kv_head,
                   int n_heads, enum code_path path);

/* All rows and heads over a cache that holds them, threads included. */
enum status attention_ref(const struct attention_launch *launch, struct stream *stream);

/* Here whoever attends to all rows of a segment stores them just before, head after head, so that
 * the lines of the cache that both touch come from memory once. Other rows are stored before. */
bool attention_cpu_stores(const struct attention_shape *shape, const struct kv_segment *segment);
enum status attention_cpu(const struct attention_launch *launch, struct stream *stream);

static inline size_t qkv_row_numbers(const struct attention_shape *shape)
{
    return ((size_t)shape->n_heads + 2 * (size_t)shape->n_kv_heads) * (size_t)shape->head_dim;
}

#endif
