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

enum { ROWS_MAX = 6, PAIRS_A_ROUND = 4 };

typedef int32_t pair_word __attribute__((may_alias, aligned(2)));

struct operands {
    const bf16 *a, *b;
    size_t ld_a, group_stride, pair_stride;
};

AVX512_TILE void accumulate(__m512 sum[ROWS_MAX][TILE_GROUPS_MAX], const struct operands *o,
                            size_t pair, const int rows, const int groups)
{
    __m512bh w[TILE_GROUPS_MAX];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++)
        w[g] =
            (__m512bh)_mm512_load_si512(o->b + (size_t)g * o->group_stride + pair * o->pair_stride);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        const pair_word *x = (const pair_word *)(o->a + (size_t)r * o->ld_a + 2 * pair);
        __m512bh both = (__m512bh)_mm512_set1_epi32(*x);
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            sum[r][g] = _mm512_dpbf16_ps(sum[r][g], both, w[g]);
    }
}

/* rows, groups and panel are constants at every call: each call is a kernel of its own. */
AVX512_TILE void multiply(const struct tile_product *p, int first_row, const char *prefetch,
                          size_t lines_a_round, const int rows, const int groups, const int panel)
{
    __m512 sum[ROWS_MAX][TILE_GROUPS_MAX];
    float *acc = p->acc + (size_t)first_row * p->ld_acc;
    struct operands o = {p->a + (size_t)first_row * p->ld_a, p->b, p->ld_a,
                         panel ? TILE_PAIR : p->group_stride,
                         panel ? (size_t)groups * TILE_PAIR : TILE_PAIR};
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            sum[r][g] = p->resume ? _mm512_loadu_ps(acc + (size_t)r * p->ld_acc + g * TILE_GROUP)
                                  : _mm512_setzero_ps();
    size_t pair = 0, n_pairs = (size_t)p->n_pairs;
    for (; pair + PAIRS_A_ROUND <= n_pairs; pair += PAIRS_A_ROUND) {
        for (size_t line = 0; line < lines_a_round; line++, prefetch += 64)
            _mm_prefetch(prefetch, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t i = 0; i < PAIRS_A_ROUND; i++)
            accumulate(sum, &o, pair + i, rows, groups);
    }
    for (; pair < n_pairs; pair++)
        accumulate(sum, &o, pair, rows, groups);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++)
            _mm512_storeu_ps(acc + (size_t)r * p->ld_acc + g * TILE_GROUP, sum[r][g]);
}

#define KERNEL(rows, groups)                                                                       \
    AVX512 static void panel_##rows##_##groups(const struct tile_product *p, int row,              \
                                               const char *f, size_t n)                            \
    {                                                                                              \
        multiply(p, row, f, n, rows, groups, 1);                                                   \
    }                                                                                              \
    AVX512 static void apart_##rows##_##groups(const struct tile_product *p, int row,              \
                                               const char *f, size_t n)                            \
    {                                                                                              \
        multiply(p, row, f, n, rows, groups, 0);                                                   \
    }
#define KERNELS(rows) KERNEL(rows, 1) KERNEL(rows, 2) KERNEL(rows, 3) KERNEL(rows, 4)
KERNELS(1)
KERNELS(2) KERNELS(3) KERNELS(4) KERNELS(5) KERNELS(6)

    typedef void (*kernel)(const struct tile_product *p, int row, const char *prefetch,
                           size_t lines_a_round);
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

void tile_multiply_avx512bf16(const struct tile_product *p)
{
    int panel = p->group_stride == TILE_PAIR;
    int n_tiles = (p->n_rows + ROWS_MAX - 1) / ROWS_MAX;
    int n_rounds = p->n_pairs / PAIRS_A_ROUND * n_tiles;
    size_t lines_a_round =
        n_rounds ? (p->prefetch_bytes / 64 + (size_t)n_rounds - 1) / (size_t)n_rounds : 0;
    const char *prefetch = p->prefetch;
    for (int tile = 0; tile < n_tiles; tile++) {
        int first = p->n_rows * tile / n_tiles;
        int rows = p->n_rows * (tile + 1) / n_tiles - first;
        kernels[panel][rows - 1][p->n_groups - 1](p, first, prefetch, lines_a_round);
        prefetch += lines_a_round * 64 * (size_t)(p->n_pairs / PAIRS_A_ROUND);
    }
}
#endif
