/*
 * tile_avx512.c - the tile product with vdpbf16ps: up to 6 rows by 64 columns in 24 accumulators.
 *
 * Six rows by four groups need 24 + 4 + 1 of the 32 registers, and load 10 words for 24 products.
 * All tile shapes run the same chain for an element, so the cut of the rows into tiles changes no
 * bit.
 */
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512      __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define AVX512_TILE static inline __attribute__((always_inline)) AVX512

enum { ROWS_MAX = 6, ROWS_A_STREAM = 2, PAIRS_A_ROUND = 4 };

typedef int32_t pair_word __attribute__((may_alias, aligned(2)));

/* A tile of rows of one product. */
struct tile {
    float *acc;
    const bf16 *a, *b;
    size_t ld_acc, ld_a, group_stride, pair_stride, strip_stride, n_pairs, strip_pairs;
    int resume;
    ptrdiff_t ahead;        /* bytes from a word of b to the one fetched with it; 0: none */
    size_t n_tiles, n_idle; /* with more than ROWS_A_STREAM rows one of n_tiles pairs fetches, the
                               first one behind n_idle */
};

AVX512_TILE void accumulate(__m512 sum[ROWS_MAX][TILE_GROUPS_MAX], struct tile *t, size_t pair,
                            const int rows, const int groups, const int in_l2)
{
    __m512bh w[TILE_GROUPS_MAX];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
        const bf16 *words = t->b + (size_t)g * t->group_stride + pair * t->pair_stride;
        w[g] = (__m512bh)_mm512_load_si512(words);
        if (rows <= ROWS_A_STREAM && in_l2)
            _mm_prefetch((const char *)words + t->ahead, _MM_HINT_T1);
        else if (rows <= ROWS_A_STREAM)
            _mm_prefetch((const char *)words + t->ahead, _MM_HINT_T0);
    }
    if (rows > ROWS_A_STREAM && t->n_idle-- == 0) {
        const bf16 *words = t->b + pair * t->pair_stride;
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            _mm_prefetch((const char *)(words + (size_t)g * t->group_stride) + t->ahead,
                         _MM_HINT_T0);
        t->n_idle = t->n_tiles - 1;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        const pair_word *x = (const pair_word *)(t->a + (size_t)r * t->ld_a + 2 * pair);
        __m512bh both = (__m512bh)_mm512_set1_epi32(*x);
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            sum[r][g] = _mm512_dpbf16_ps(sum[r][g], both, w[g]);
    }
}

/* rows, groups, panel and in_l2 (words ahead go into the second-level cache alone) are constants at
 * every call: each call is a kernel of its own. */
AVX512_TILE void multiply(const struct tile *tile, const int rows, const int groups,
                          const int panel, const int in_l2)
{
    struct tile t = *tile;
    __m512 sum[ROWS_MAX][TILE_GROUPS_MAX];
    t.group_stride = panel ? TILE_PAIR : t.group_stride;
    t.pair_stride = panel ? (size_t)groups * TILE_PAIR : TILE_PAIR;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            sum[r][g] = t.resume ? _mm512_loadu_ps(t.acc + (size_t)r * t.ld_acc + g * TILE_GROUP)
                                 : _mm512_setzero_ps();
    for (size_t left = t.n_pairs;;) {
        size_t pair = 0, n = left < t.strip_pairs ? left : t.strip_pairs;
        for (; pair + PAIRS_A_ROUND <= n; pair += PAIRS_A_ROUND)
#pragma GCC unroll 4
            for (size_t i = 0; i < PAIRS_A_ROUND; i++)
                accumulate(sum, &t, pair + i, rows, groups, in_l2);
        for (; pair < n; pair++)
            accumulate(sum, &t, pair, rows, groups, in_l2);
        left -= n;
        if (!left)
            break;
        t.a += 2 * n;
        t.b += t.strip_stride;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            _mm512_storeu_ps(t.acc + (size_t)r * t.ld_acc + g * TILE_GROUP, sum[r][g]);
}

#define KERNEL(name, rows, groups, panel, in_l2)                                                   \
    AVX512 static void name##_##rows##_##groups(const struct tile *t)                              \
    {                                                                                              \
        multiply(t, rows, groups, panel, in_l2);                                                   \
    }
#define KERNELS(name, rows, panel, in_l2)                                                          \
    KERNEL(name, rows, 1, panel, in_l2)                                                            \
    KERNEL(name, rows, 2, panel, in_l2)                                                            \
    KERNEL(name, rows, 3, panel, in_l2)                                                            \
    KERNEL(name, rows, 4, panel, in_l2)
#define KERNELS_ALL_ROWS(name, panel)                                                              \
    KERNELS(name, 1, panel, 0)                                                                     \
    KERNELS(name, 2, panel, 0)                                                                     \
    KERNELS(name, 3, panel, 0)                                                                     \
    KERNELS(name, 4, panel, 0)                                                                     \
    KERNELS(name, 5, panel, 0)                                                                     \
    KERNELS(name, 6, panel, 0)
KERNELS_ALL_ROWS(apart, 0)
KERNELS_ALL_ROWS(panel, 1)
KERNELS(apart_l2, 1, 0, 1)
KERNELS(apart_l2, 2, 0, 1)
KERNELS(panel_l2, 1, 1, 1)
KERNELS(panel_l2, 2, 1, 1)

/* clang-format off */
#define ROW(name, rows) {name##_##rows##_1, name##_##rows##_2, name##_##rows##_3, name##_##rows##_4}
#define TABLE(name) {ROW(name, 1), ROW(name, 2), ROW(name, 3), ROW(name, 4), ROW(name, 5), ROW(name, 6)}
#define TABLE_STREAM(name) {ROW(name, 1), ROW(name, 2)}
/* clang-format on */
typedef void (*kernel)(const struct tile *t);
static const kernel kernels[2][ROWS_MAX][TILE_GROUPS_MAX] = {TABLE(apart), TABLE(panel)};
static const kernel kernels_l2[2][ROWS_A_STREAM][TILE_GROUPS_MAX] = {TABLE_STREAM(apart_l2),
                                                                     TABLE_STREAM(panel_l2)};

/* One or two rows wait for memory: every word fetches the one that comes `ahead` bytes later. Tiles
 * of more rows reuse b, and fetch words in turn. */
static void multiply_one(const struct tile_product *p, struct tile *t,
                         const kernel stream[][TILE_GROUPS_MAX])
{
    const kernel(*run)[TILE_GROUPS_MAX] =
        p->n_rows <= ROWS_A_STREAM ? stream : kernels[p->group_stride == TILE_PAIR];
    const int n_tiles = (p->n_rows + ROWS_MAX - 1) / ROWS_MAX;
    t->ahead = p->next ? (const char *)p->next - (const char *)p->b : 0;
    t->n_tiles = (size_t)n_tiles;
    for (int tile = 0; tile < n_tiles; tile++) {
        int first = p->n_rows * tile / n_tiles, rows = p->n_rows * (tile + 1) / n_tiles - first;
        t->acc = p->acc + (size_t)first * p->ld_acc;
        t->a = p->a + (size_t)first * p->ld_a;
        t->b = p->b;
        t->n_idle = (size_t)tile;
        run[rows - 1][p->n_groups - 1](t);
    }
}

/* stream: the kernels of one and two rows. */
static void multiply_all(const struct tile_product *p, const kernel stream[][TILE_GROUPS_MAX])
{
    struct tile t = {.ld_acc = p->ld_acc,
                     .ld_a = p->ld_a,
                     .group_stride = p->group_stride,
                     .strip_stride = p->strip_stride,
                     .n_pairs = (size_t)p->n_pairs,
                     .strip_pairs = (size_t)(p->strip_stride ? TILE_STRIP_PAIRS : p->n_pairs),
                     .resume = p->resume};
    for (int i = 0; i < p->n_products; i++) {
        const struct tile_product one = tile_single(p, i);
        multiply_one(&one, &t, stream);
    }
}

void tile_multiply_avx512bf16(const struct tile_product *product)
{
    multiply_all(product, kernels[product->group_stride == TILE_PAIR]);
}

void tile_multiply_beside_amx(const struct tile_product *product)
{
    multiply_all(product, kernels_l2[product->group_stride == TILE_PAIR]);
}
#endif
