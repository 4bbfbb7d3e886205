/*
 * attention.h - causal attention of new rows over the paged cache that already holds their keys and
 * values.
 */
#ifndef MGPT_KERNELS_ATTENTION_H
#define MGPT_KERNELS_ATTENTION_H

#include "kernels/kv.h"

/*
 * y = softmax(q k^T * head_dim^-0.5) v over the positions up to each row's own, scores and softmax
 * in f32.
 *
 * y: [n_rows, n_heads * head_dim], qkv: as qk_norm_rope_store() left it, of shape->dtype; they do
 * not overlap. Each split of KV_SPLIT_TOKENS absolute positions is reduced alone and merged in
 * order, so a row's bits do not depend on how many rows its segment has. Blocks are read once for
 * all rows of a segment (and all heads of a group).
 */
enum status attention(void *y, const void *qkv, const struct attention_shape *shape,
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
