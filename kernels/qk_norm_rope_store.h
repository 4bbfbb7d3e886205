/*
 * qk_norm_rope_store.h - from the fused projection to rotated queries in place and keys and values
 * in the cache.
 *
 * A row of qkv is [n_heads * head_dim | n_kv_heads * head_dim | n_kv_heads * head_dim].
 */
#ifndef MGPT_KERNELS_QK_NORM_ROPE_STORE_H
#define MGPT_KERNELS_QK_NORM_ROPE_STORE_H

#include "kernels/kv.h"

/* Cosines and sines of all positions, f32 whatever the compute type. */
struct rope_table;

struct rope_options {
    int n_positions; /* positions [0, n_positions) are in the table */
    int head_dim;
    double theta;
    double factor; /* positions are divided by it; 1: plain */
};

enum status rope_table_create(struct rope_table **out, const struct rope_options *options,
                              struct stream *stream, struct error *err);
void rope_table_destroy(struct rope_table *table); /* NULL is fine */
size_t rope_table_bytes(const struct rope_options *options);

/* LayerNorm over each head of q and k, f32, borrowed. */
struct qk_norm {
    const float *q_weight, *q_bias; /* [n_heads, head_dim] */
    const float *k_weight, *k_bias; /* [n_kv_heads, head_dim] */
    float eps;
};

/*
 * q = rope(layernorm(q)) in place; k = rope(layernorm(k)) and v go to the cache at each row's
 * position. All in f32 from the projection's output on, rounded once. RoPE turns (x[i], x[i +
 * head_dim / 2]).
 *
 * qkv: [n_rows, (n_heads + 2 n_kv_heads) * head_dim] of shape->dtype; its k and v parts are left as
 * they were. STATUS_INVALID: a position outside the table, or a block outside the pool.
 */
enum status qk_norm_rope_store(void *qkv, const struct attention_shape *shape,
                               const struct qk_norm *norm, const struct rope_table *rope,
                               const struct kv_segment *segments, int n_segments,
                               const struct kv_layer *kv, struct stream *stream);

#endif
