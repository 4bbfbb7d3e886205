/*
 * kv_layout.h - the inside of a KV block, for the kernels that fill and read it only.
 *
 * Heads lie one after the other: what a step over several of them reads lies in long runs, which
 * the processor's own prefetching follows.
 * f32:  the keys of all kv heads, [head][head_dim][64 positions], then their values, [head][64
 *       positions][head_dim].
 * bf16: four strips of 16 positions, so that few positions lie together. A strip holds the keys of
 *       all kv heads, then their values, both as tile.h wants its operand b. Keys, for scores, are
 *       [head][head_dim / 2 pairs][16][2]; values, for the weighted sum, are cut into panels of 4
 *       groups of 16 columns (the last of fewer, its last group padded), each panel [head][8 pairs
 *       of positions][groups][16][2].
 * A pair of positions is used as soon as its first is stored, so storing an even position that is
 * the newest also clears the odd one behind it.
 */
#ifndef MGPT_KERNELS_KV_LAYOUT_H
#define MGPT_KERNELS_KV_LAYOUT_H

#include "kernels/kv.h"

enum {
    KV_GROUP = 16,                /* columns */
    KV_PAIR_WORDS = 2 * KV_GROUP, /* bf16 of one group and pair */
    KV_STRIP_TOKENS = 16,
    KV_STRIP_PAIRS = KV_STRIP_TOKENS / 2,
    KV_STRIPS = KV_BLOCK_TOKENS / KV_STRIP_TOKENS
};

static inline int kv_value_groups(int head_dim)
{
    return (head_dim + KV_GROUP - 1) / KV_GROUP;
}

/* Bytes of one head's keys in a block, and of its values. */
static inline size_t kv_key_bytes(const struct attention_shape *shape)
{
    return (size_t)KV_BLOCK_TOKENS * (size_t)shape->head_dim * dtype_bytes(shape->dtype);
}

static inline size_t kv_value_bytes(const struct attention_shape *shape)
{
    int columns =
        shape->dtype == DTYPE_F32 ? shape->head_dim : kv_value_groups(shape->head_dim) * KV_GROUP;
    return (size_t)KV_BLOCK_TOKENS * (size_t)columns * dtype_bytes(shape->dtype);
}

/* f32: the keys and the values of one head. */
static inline float *kv_keys_f32(const struct kv_layer *kv, const struct attention_shape *shape,
                                 int32_t block, int kv_head)
{
    return (float *)((char *)kv->pool + (size_t)block * kv_block_bytes(shape) +
                     (size_t)kv_head * kv_key_bytes(shape));
}

static inline float *kv_values_f32(const struct kv_layer *kv, const struct attention_shape *shape,
                                   int32_t block, int kv_head)
{
    return (float *)((char *)kv->pool + (size_t)block * kv_block_bytes(shape) +
                     (size_t)shape->n_kv_heads * kv_key_bytes(shape) +
                     (size_t)kv_head * kv_value_bytes(shape));
}

/* bf16 of a strip, and of one head's keys in it. */
static inline size_t kv_strip_words(const struct attention_shape *shape)
{
    return kv_block_bytes(shape) / sizeof(bf16) / KV_STRIPS;
}

static inline size_t kv_strip_key_words(const struct attention_shape *shape)
{
    return (size_t)KV_STRIP_TOKENS * (size_t)shape->head_dim;
}

/* The strip of a position. */
static inline bf16 *kv_strip_at(const struct kv_layer *kv, const struct attention_shape *shape,
                                const int32_t *blocks, int position)
{
    int32_t block = blocks[position / KV_BLOCK_TOKENS];
    int strip = position % KV_BLOCK_TOKENS / KV_STRIP_TOKENS;
    return (bf16 *)kv->pool + ((size_t)block * KV_STRIPS + (size_t)strip) * kv_strip_words(shape);
}

/* The keys of one head in a strip. */
static inline bf16 *kv_strip_keys(bf16 *strip, const struct attention_shape *shape, int kv_head)
{
    return strip + (size_t)kv_head * kv_strip_key_words(shape);
}

enum { KV_PANEL_GROUPS = 4, KV_PANEL_COLUMNS = KV_PANEL_GROUPS * KV_GROUP };

/* Groups in a panel of values, and bf16 of one head in it, of a strip. */
static inline int kv_panel_groups(int head_dim, int panel)
{
    int left = kv_value_groups(head_dim) - panel * KV_PANEL_GROUPS;
    return left < KV_PANEL_GROUPS ? left : KV_PANEL_GROUPS;
}

static inline size_t kv_panel_words(int head_dim, int panel)
{
    return (size_t)kv_panel_groups(head_dim, panel) * KV_GROUP * KV_STRIP_TOKENS;
}

/* One panel of the values of one head in a strip. */
static inline bf16 *kv_strip_panel(bf16 *strip, const struct attention_shape *shape, int kv_head,
                                   int panel)
{
    return kv_strip_keys(strip, shape, shape->n_kv_heads) +
           (size_t)panel * KV_PANEL_COLUMNS * KV_STRIP_TOKENS * (size_t)shape->n_kv_heads +
           (size_t)kv_head * kv_panel_words(shape->head_dim, panel);
}

#endif
