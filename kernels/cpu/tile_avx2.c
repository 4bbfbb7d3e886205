/*
 * tile_avx2.c - the tile product with AVX2 and FMA: bf16 is widened to f32 by a shift or a mask,
 * then fused.
 *
 * Eight accumulators hold 1 row by 4 groups of 16 columns, 2 by 2 or 4 by 1: enough chains to hide
 * the latency of FMA in 16 registers. All shapes run the same chain for an element.
 */
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2      __attribute__((target("avx2,fma")))
#define AVX2_TILE static inline __attribute__((always_inline)) AVX2

enum { ROWS_MAX = 4, HALVES_MAX = 8, HALF = 8, AHEAD_PAIRS = 16 };

typedef int32_t pair_word __attribute__((may_alias, aligned(2)));

/* `rows` rows by `halves` runs of 8 columns, rows * halves <= 8; both are constants at every call.
 */
AVX2_TILE void multiply(const struct tile_product *p, int first_row, int group, const int rows,
                        const int halves)
{
    __m256 sum[ROWS_MAX][HALVES_MAX];
    const bf16 *a = p->a + (size_t)first_row * p->ld_a;
    const bf16 *b = p->b + (size_t)group * p->group_stride;
    float *acc = p->acc + (size_t)first_row * p->ld_acc + (size_t)group * TILE_GROUP;
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int h = 0; h < halves; h++)
            sum[r][h] = p->resume ? _mm256_loadu_ps(acc + (size_t)r * p->ld_acc + h * HALF)
                                  : _mm256_setzero_ps();
    for (size_t pair = 0; pair < (size_t)p->n_pairs; pair++) {
        __m256 even_x[ROWS_MAX], odd_x[ROWS_MAX];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i x = _mm256_set1_epi32(*(const pair_word *)(a + (size_t)r * p->ld_a + 2 * pair));
            even_x[r] = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
            odd_x[r] = _mm256_castsi256_ps(_mm256_and_si256(x, upper));
        }
#pragma GCC unroll 8
        for (int h = 0; h < halves; h++) {
            const bf16 *words = b + (size_t)(h / 2) * p->group_stride + pair * p->pair_stride +
                                (size_t)(h % 2) * 2 * HALF;
            __m256i both = _mm256_load_si256((const __m256i *)words);
            __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
            if (h % 2 == 0)
                _mm_prefetch((const char *)(words + AHEAD_PAIRS * p->pair_stride), _MM_HINT_T0);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                sum[r][h] =
                    _mm256_fmadd_ps(odd, odd_x[r], _mm256_fmadd_ps(even, even_x[r], sum[r][h]));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int h = 0; h < halves; h++)
            _mm256_storeu_ps(acc + (size_t)r * p->ld_acc + h * HALF, sum[r][h]);
}

AVX2 static void one_row(const struct tile_product *p, int row)
{
    int group = 0;
    for (; group + 4 <= p->n_groups; group += 4)
        multiply(p, row, group, 1, 8);
    for (; group < p->n_groups; group++)
        multiply(p, row, group, 1, 2);
}

AVX2 static void two_rows(const struct tile_product *p, int row)
{
    int group = 0;
    for (; group + 2 <= p->n_groups; group += 2)
        multiply(p, row, group, 2, 4);
    for (; group < p->n_groups; group++)
        multiply(p, row, group, 2, 2);
}

AVX2 static void four_rows(const struct tile_product *p, int row)
{
    for (int group = 0; group < p->n_groups; group++)
        multiply(p, row, group, 4, 2);
}

AVX2 void tile_multiply_avx2(const struct tile_product *product)
{
    for (int i = 0; i < product->n_products; i++) {
        struct tile_product p = tile_single(product, i);
        int row = 0;
        for (; row + 4 <= p.n_rows; row += 4)
            four_rows(&p, row);
        for (; row + 2 <= p.n_rows; row += 2)
            two_rows(&p, row);
        if (row < p.n_rows)
            one_row(&p, row);
    }
}
#endif
