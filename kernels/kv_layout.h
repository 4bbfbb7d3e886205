/*
 * kv_layout.h - the inside of a KV block, for the kernels that fill and read it only.
 *
 * A block holds the keys of all kv heads, head after head, then the values of all: what a step over
 * several heads reads lies in long runs, which the processor's own prefetching follows.
 * f32:  keys [head][head_dim][64 positions], values [head][64 positions][head_dim].
 * bf16: both as tile.h wants its operand b. Keys, for scores, are [head][4 groups of 16 positions]
 *       [head_dim / 2 pairs][16][2]; values, for the weighted sum, are cut into panels of 4 groups
 * of 16 columns (the last of fewer, its last group padded), each panel [head][32 pairs of
 *       positions][groups][16][2]. So what few positions need lies together at the front of either.
 * A pair of positions is used as soon as its first is stored, so storing an even position that is
 * the newest also clears the odd one behind it.
 */
#ifndef MGPT_KERNELS_KV_LAYOUT_H
#define MGPT_KERNELS_KV_LAYOUT_H

#include "kernels/kv.h"

enum { KV_GROUP = 16, KV_PAIR_WORDS = 2 * KV_GROUP }; /* bf16 of one group and pair */

static inline int kv_value_groups(int head_dim)
{
    return (head_dim + KV_GROUP - 1) / KV_GROUP;
}

/* Bytes of one head's keys, and of its values. */
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

static inline void *kv_keys_at(const struct kv_layer *kv, const struct attention_shape *shape,
                               int32_t block, int kv_head)
{
    return (char *)kv->pool + (size_t)block * kv_block_bytes(shape) +
           (size_t)kv_head * kv_key_bytes(shape);
}

/* f32: the values of one head. */
static inline void *kv_values_at(const struct kv_layer *kv, const struct attention_shape *shape,
                                 int32_t block, int kv_head)
{
    return (char *)kv->pool + (size_t)block * kv_block_bytes(shape) +
           (size_t)shape->n_kv_heads * kv_key_bytes(shape) +
           (size_t)kv_head * kv_value_bytes(shape);
}

/* bf16 from a group of keys to the next. */
static inline size_t kv_key_group_stride(int head_dim)
{
    return (size_t)head_dim / 2 * KV_PAIR_WORDS;
}

enum { KV_PANEL_GROUPS = 4, KV_PANEL_COLUMNS = KV_PANEL_GROUPS * KV_GROUP };

/* Groups in a panel of values, and bf16 of one head in it. */
static inline int kv_panel_groups(int head_dim, int panel)
{
    int left = kv_value_groups(head_dim) - panel * KV_PANEL_GROUPS;
    return left < KV_PANEL_GROUPS ? left : KV_PANEL_GROUPS;
}

static inline size_t kv_panel_words(int head_dim, int panel)
{
    return (size_t)kv_panel_groups(head_dim, panel) * KV_GROUP * KV_BLOCK_TOKENS;
}

/* bf16: one panel of the values of one head. */
static inline bf16 *kv_panel_at(const struct kv_layer *kv, const struct attention_shape *shape,
                                int32_t block, int kv_head, int panel)
{
    bf16 *values = kv_values_at(kv, shape, block, 0);
    return values + (size_t)panel * KV_PANEL_COLUMNS * KV_BLOCK_TOKENS * (size_t)shape->n_kv_heads +
           (size_t)kv_head * kv_panel_words(shape->head_dim, panel);
}

#endif
