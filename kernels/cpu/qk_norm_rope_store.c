/*
 * qk_norm_rope_store.c - bf16 rows: a head is widened once, normed, turned and rounded once, then
 * put in its place.
 */
#include <math.h>

#include "kernels/attention_launch.h"
#include "kernels/cpu/vector.h"
#include "kernels/kv_layout.h"

/* Room for a head and for whole vectors that begin inside its second half. */
enum { HEAD_ROOM = HEAD_DIM_MAX + LANES };

/* turned = rope(layernorm(x)). Lanes past the head hold anything afterwards. */
VECTOR_INLINE void norm_and_turn(float turned[HEAD_ROOM], const bf16 *x, const float *weight,
                                 const float *bias, const float *angles, const int head_dim,
                                 float eps)
{
    float centred[HEAD_ROOM], normed[HEAD_ROOM];
    const int half = head_dim / 2;
    f32x16 sum = {0}, squares = {0};
#pragma GCC unroll 8
    for (int i = 0; i < head_dim; i += LANES) {
        f32x16 v =
            load_lanes(x, DTYPE_BF16, (size_t)i, head_dim - i < LANES ? head_dim - i : LANES);
        store_f32(centred + i, v);
        sum += v;
    }
    float mean = sum_lanes(sum) / (float)head_dim;
#pragma GCC unroll 8
    for (int i = 0; i < head_dim; i += LANES) {
        f32x16 v = load_f32(centred + i) - mean;
        if (head_dim - i < LANES) {
            float part[LANES];
            store_f32(part, v);
            for (int j = head_dim - i; j < LANES; j++)
                part[j] = 0;
            v = load_f32(part);
        }
        store_f32(centred + i, v);
        squares += v * v;
    }
    float scale = 1.0f / sqrtf(sum_lanes(squares) / (float)head_dim + eps);
#pragma GCC unroll 8
    for (int i = 0; i < head_dim; i += LANES) {
        int n = head_dim - i < LANES ? head_dim - i : LANES;
        f32x16 v = load_f32(centred + i) * scale * load_lanes(weight, DTYPE_F32, (size_t)i, n) +
                   load_lanes(bias, DTYPE_F32, (size_t)i, n);
        store_f32(normed + i, v);
    }
    memset(normed + (head_dim + LANES - 1) / LANES * LANES, 0, LANES * sizeof(float));
    /* The first half is written before the second, whose place its spare lanes run into. */
#pragma GCC unroll 8
    for (int i = 0; i < half; i += LANES)
        store_f32(turned + i, load_f32(normed + i) * load_f32(angles + i) -
                                  load_f32(normed + half + i) * load_f32(angles + half + i));
#pragma GCC unroll 8
    for (int i = 0; i < half; i += LANES)
        store_f32(turned + half + i, load_f32(normed + half + i) * load_f32(angles + i) +
                                         load_f32(normed + i) * load_f32(angles + half + i));
}

VECTOR_INLINE void round_head(bf16 *y, const float *x, int head_dim)
{
#pragma GCC unroll 8
    for (int i = 0; i < head_dim; i += LANES)
        store_lanes(y, DTYPE_BF16, (size_t)i, load_f32(x + i),
                    head_dim - i < LANES ? head_dim - i : LANES);
}

/* Each pair of a key is a word of another line. */
VECTOR_INLINE void store_key(bf16 *keys, const bf16 *key, int slot, int head_dim)
{
    for (int pair = 0; pair < head_dim / 2; pair++)
        memcpy(keys + 2 * slot + (size_t)pair * KV_PAIR_WORDS, key + 2 * pair, 2 * sizeof(bf16));
}

/* The place of one position in the cache. */
struct place {
    const struct attention_shape *shape;
    bf16 *strip;
    int slot; /* position in the strip */
};

/* The words of the group that column i of a head begins. */
VECTOR_INLINE bf16 *value_word(const struct place *p, int kv_head, int i, const int head_dim)
{
    int panel = i / KV_PANEL_COLUMNS, group = i / KV_GROUP % KV_PANEL_GROUPS;
    size_t pair_stride = (size_t)kv_panel_groups(head_dim, panel) * KV_PAIR_WORDS;
    return kv_strip_panel(p->strip, p->shape, kv_head, panel) +
           (size_t)(p->slot / 2) * pair_stride + (size_t)group * KV_PAIR_WORDS;
}

/* Column i's words with the value of the second position, or of the first; the other half is what
 * `kept` leaves of it. */
VECTOR_INLINE void store_value_words(const struct place *p, int kv_head, int i, const bf16 *value,
                                     const int second, uint32_t kept, const int head_dim)
{
    uint32_t *to = (uint32_t *)(void *)value_word(p, kv_head, i, head_dim);
    f32x16 widened =
        load_lanes(value, DTYPE_BF16, (size_t)i, head_dim - i < LANES ? head_dim - i : LANES);
    u32x16 half = second ? to_bits(widened) : to_bits(widened) >> 16;
    store_u32(to, (load_u32(to) & kept) | half);
}

/*
 * Values of two positions share words; both rows of a pair are stored by one thread, so whole words
 * may be rewritten. The word's other half stays, or is cleared where it belongs to a position that
 * is not there yet.
 */
VECTOR_INLINE void store_value(const struct place *p, int kv_head, const bf16 *value, int newest,
                               const int head_dim)
{
    if (p->slot % 2) {
#pragma GCC unroll 8
        for (int i = 0; i < head_dim; i += KV_GROUP)
            store_value_words(p, kv_head, i, value, 1, 0x0000ffffu, head_dim);
        return;
    }
    const uint32_t kept = newest ? 0 : 0xffff0000u;
#pragma GCC unroll 8
    for (int i = 0; i < head_dim; i += KV_GROUP)
        store_value_words(p, kv_head, i, value, 0, kept, head_dim);
}

/* What the stores of one kv head will touch, fetched while its queries are computed. */
VECTOR_INLINE void fetch_places(const struct place *p, int kv_head, const int head_dim)
{
    const bf16 *key = kv_strip_keys(p->strip, p->shape, kv_head);
    for (int pair = 0; pair < head_dim / 2; pair++)
        __builtin_prefetch(key + (size_t)pair * KV_PAIR_WORDS, 1);
#pragma GCC unroll 8
    for (int i = 0; i < head_dim; i += KV_GROUP)
        __builtin_prefetch(value_word(p, kv_head, i, head_dim), 1);
}

/* kv heads [first, end); d is the head_dim: where it is a constant, loops over a head unroll. */
VECTOR_INLINE void store_heads(const struct attention_launch *l, const struct store_row *row,
                               int first, int end, const int d)
{
    const struct attention_shape *shape = l->shape;
    const struct place place = {shape,
                                kv_strip_at(l->kv, shape, row->segment->blocks, row->position),
                                row->position % KV_STRIP_TOKENS};
    bf16 *q = (bf16 *)l->qkv + (size_t)row->row * qkv_row_numbers(shape);
    const bf16 *k = q + (size_t)shape->n_heads * (size_t)d,
               *v = k + (size_t)shape->n_kv_heads * (size_t)d;
    const float *angles = l->rope->values + (size_t)row->position * (size_t)d;
    const int group = shape->n_heads / shape->n_kv_heads;
    float turned[HEAD_ROOM];
    bf16 key[HEAD_ROOM];
    for (int h = first; h < end; h++) {
        fetch_places(&place, h, d);
        for (int i = h * group; i <= (h + 1) * group; i++) { /* its queries, then the key */
            const int is_key = i == (h + 1) * group;
            size_t at = (size_t)(is_key ? h : i) * (size_t)d;
            const bf16 *x = is_key ? k + at : q + at;
            const float *weight = is_key ? l->norm->k_weight : l->norm->q_weight;
            const float *bias = is_key ? l->norm->k_bias : l->norm->q_bias;
            norm_and_turn(turned, x, weight + at, bias + at, angles, d, l->norm->eps);
            round_head(is_key ? key : q + at, turned, d);
        }
        store_key(kv_strip_keys(place.strip, shape, h), key, place.slot, d);
        store_value(&place, h, v + (size_t)h * (size_t)d, row->newest, d);
    }
}

VECTOR_INLINE void store_one_body(const struct attention_launch *l, const struct store_row *row,
                                  int first, int end)
{
    if (l->shape->head_dim == 128)
        store_heads(l, row, first, end, 128);
    else if (l->shape->head_dim == 64)
        store_heads(l, row, first, end, 64);
    else
        store_heads(l, row, first, end, l->shape->head_dim);
}
FOR_EACH_PATH(store_one,
              (const struct attention_launch *l, const struct store_row *row, int first, int end),
              (l, row, first, end))

void store_row_cpu(const struct attention_launch *launch, const struct store_row *row, int kv_head,
                   int n_heads, enum code_path path)
{
    store_one_of(path)(launch, row, kv_head, kv_head + n_heads);
}
