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
    size_t ld_acc, ld_a, group_stride, pair_stride, n_pairs;
    int resume;
    ptrdiff_t ahead; /* bytes from a word of b to the one fetched with it; 0: none */
    const char
        *prefetch; /* or: lines_a_round lines are fetched from here every PAIRS_A_ROUND pairs */
    size_t lines_a_round;
};

AVX512_TILE void accumulate(__m512 sum[ROWS_MAX][TILE_GROUPS_MAX], const struct tile *t,
                            size_t pair, const int rows, const int groups)
{
    __m512bh w[TILE_GROUPS_MAX];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
        const bf16 *words = t->b + (size_t)g * t->group_stride + pair * t->pair_stride;
        w[g] = (__m512bh)_mm512_load_si512(words);
        if (rows <= ROWS_A_STREAM)
            _mm_prefetch((const char *)words + t->ahead, _MM_HINT_T0);
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

/* rows, groups and panel are constants at every call: each call is a kernel of its own. */
AVX512_TILE void multiply(const struct tile *tile, const int rows, const int groups,
                          const int panel)
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
    size_t pair = 0;
    for (; pair + PAIRS_A_ROUND <= t.n_pairs; pair += PAIRS_A_ROUND) {
        if (rows > ROWS_A_STREAM)
            for (size_t line = 0; line < t.lines_a_round; line++, t.prefetch += 64)
                _mm_prefetch(t.prefetch, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t i = 0; i < PAIRS_A_ROUND; i++)
            accumulate(sum, &t, pair + i, rows, groups);
    }
    for (; pair < t.n_pairs; pair++)
        accumulate(sum, &t, pair, rows, groups);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            _mm512_storeu_ps(t.acc + (size_t)r * t.ld_acc + g * TILE_GROUP, sum[r][g]);
}

#define KERNEL(rows, groups)                                                                       \
    AVX512 static void panel_##rows##_##groups(const struct tile *t)                               \
    {                                                                                              \
        multiply(t, rows, groups, 1);                                                              \
    }                                                                                              \
    AVX512 static void apart_##rows##_##groups(const struct tile *t)                               \
    {                                                                                              \
        multiply(t, rows, groups, 0);                                                              \
    }
#define KERNELS(rows) KERNEL(rows, 1) KERNEL(rows, 2) KERNEL(rows, 3) KERNEL(rows, 4)
KERNELS(1)
KERNELS(2)
KERNELS(3) KERNELS(4) KERNELS(5) KERNELS(6)

    typedef void (*kernel)(const struct tile *t);
#define ROW(layout, rows)                                                                          \
    {                                                                                              \
        layout##_##rows##_1, layout##_##rows##_2, layout##_##rows##_3, layout##_##rows##_4         \
    }
#define TABLE(layout)                                                                              \
    {                                                                                              \
        ROW(layout, 1), ROW(layout, 2), ROW(layout, 3), ROW(layout, 4), ROW(layout, 5),            \
            ROW(layout, 6)                                                                         \
    }
static const kernel kernels[2][ROWS_MAX][TILE_GROUPS_MAX] = {TABLE(apart), TABLE(panel)};

/* One or two rows wait for memory: every word fetches the one that comes `ahead` bytes later. */
static void multiply_stream(const struct tile_product *p, struct tile *t, kernel run)
{
    for (int i = 0; i < p->n_products; i++) {
        const char *next = i + 1 < p->n_products ? (const char *)(t->b + p->b_step) : p->next;
        t->ahead = next ? next - (const char *)t->b : 0;
        run(t);
        t->acc += p->acc_step;
        t->a += p->a_step;
        t->b += p->b_step;
    }
}

/* More rows reuse b: what comes next is fetched evenly over all of the tiles. */
static void multiply_tiles(const struct tile_product *p, struct tile *t,
                           const kernel run[ROWS_MAX][TILE_GROUPS_MAX])
{
    int n_tiles = (p->n_rows + ROWS_MAX - 1) / ROWS_MAX;
    size_t n_rounds = t->n_pairs / PAIRS_A_ROUND * (size_t)n_tiles;
    if (n_rounds && p->next) {
        t->prefetch = p->next;
        t->lines_a_round = (tile_b_bytes(p) / 64 + n_rounds - 1) / n_rounds;
    }
    for (int tile = 0; tile < n_tiles; tile++) {
        int first = p->n_rows * tile / n_tiles, rows = p->n_rows * (tile + 1) / n_tiles - first;
        t->acc = p->acc + (size_t)first * p->ld_acc;
        t->a = p->a + (size_t)first * p->ld_a;
        run[rows - 1][p->n_groups - 1](t);
        t->prefetch += t->lines_a_round * 64 * (t->n_pairs / PAIRS_A_ROUND);
    }
}

void tile_multiply_avx512bf16(const struct tile_product *p)
{
    const kernel(*run)[TILE_GROUPS_MAX] = kernels[p->group_stride == TILE_PAIR];
    struct tile t = {.acc = p->acc,
                     .a = p->a,
                     .b = p->b,
                     .ld_acc = p->ld_acc,
                     .ld_a = p->ld_a,
                     .group_stride = p->group_stride,
                     .n_pairs = (size_t)p->n_pairs,
                     .resume = p->resume};
    if (p->n_rows <= ROWS_A_STREAM) {
        multiply_stream(p, &t, run[p->n_rows - 1][p->n_groups - 1]);
        return;
    }
    for (int i = 0; i < p->n_products; i++) {
        struct tile_product one = tile_single(p, i);
        t.b = one.b;
        multiply_tiles(&one, &t, run);
    }
}
#endif
