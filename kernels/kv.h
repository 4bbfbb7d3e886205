/*
 * kv.h - how keys and values lie in the paged cache, and which rows of a micro-batch belong to
 * which sequence.
 *
 * A block holds KV_BLOCK_TOKENS positions of one sequence, of one layer: kv_block_bytes() of it.
 * How it is filled inside is private to attention(). The worker owns pools and block lists. Block
 * content need not be cleared between sequences: positions that were not stored are never used.
 */
#ifndef MGPT_KERNELS_KV_H
#define MGPT_KERNELS_KV_H

#include "kernels/stream.h"

enum {
    KV_BLOCK_TOKENS = 64,
    KV_SPLIT_TOKENS = 256, /* attention works through absolute ranges of this many positions and
                              merges in order */
    HEAD_DIM_MAX = 256
};

struct attention_shape {
    int n_heads, n_kv_heads; /* n_heads is a multiple of n_kv_heads */
    int head_dim;            /* even, 2..HEAD_DIM_MAX */
    enum dtype dtype;        /* of activations, keys and values */
};

/* Bytes of one block of one layer, keys and values together; a multiple of 64. */
size_t kv_block_bytes(const struct attention_shape *shape);

/* The blocks of one layer: block b lies at pool + b * kv_block_bytes(). Aligned to 64. */
struct kv_layer {
    void *pool;
    int n_blocks;
};

/* Consecutive rows of a micro-batch that are consecutive positions of one sequence. */
struct kv_segment {
    const int32_t *blocks; /* [(start + n_rows + 63) / 64] positions [64 i, 64 i + 64) are in block
                              blocks[i] */
    int start;             /* position of its first row */
    int n_rows;            /* at least 1 */
    int first_row;         /* its place in the micro-batch */
};

#endif
