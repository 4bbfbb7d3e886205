/*
 * attention.h - from the fused projection of new rows to what they attend to: their queries and
 * keys normed and turned, keys and values put into the paged cache, and causal attention over it.
 *
 * A row of qkv is [n_heads * head_dim | n_kv_heads * head_dim | n_kv_heads * head_dim].
 */
#ifndef MGPT_KERNELS_ATTENTION_H
#define MGPT_KERNELS_ATTENTION_H

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
 * position; all in f32 from the projection's output on, rounded once. RoPE turns (x[i], x[i +
 * head_dim / 2]). Then y = softmax(q k^T * head_dim^-0.5) v over the positions up to each row's
 * own, scores and softmax in f32.
 *
 * y: [n_rows, n_heads * head_dim], qkv: [n_rows, (n_heads + 2 n_kv_heads) * head_dim], of
 * shape->dtype; they do not overlap, and the k and v parts of qkv are left as they were. Each split
 * of KV_SPLIT_TOKENS absolute positions is reduced alone and merged in order, so a row's bits do
 * not depend on how many rows its segment has. Blocks are read once for all rows of a segment (and
 * all heads of a group). Blocks that a segment writes to are in no other segment. STATUS_INVALID: a
 * position outside the table, or a block outside the pool; nothing is stored. STATUS_NOMEM: no
 * work space.
 */
enum status attention(void *y, void *qkv, const struct attention_shape *shape,
                      const struct qk_norm *norm, const struct rope_table *rope,
                      const struct kv_segment *segments, int n_segments, const struct kv_layer *kv,
                      struct stream *stream);

/*
 * Before the layers of a step: a device gets its rows, so that the launches that follow, with these
 * segments and this shape, copy nothing. *likeness: a key for stream_replay(), equal for steps
 * whose launches over linear_padded_rows() rows differ in device memory alone; 0 where there is
 * none. STATUS_NOMEM: more rows than a device has room for.
 */
enum status attention_prepare_rows(uint64_t *likeness, const struct attention_shape *shape,
                                   const struct kv_segment *segments, int n_segments,
                                   struct stream *stream);

#endif
