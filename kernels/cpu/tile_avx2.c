/*
 * tile_avx2.c - the tile product with AVX2 and FMA: bf16 is widened to f32 by a shift or a mask,
 * then fused products.
 *
 * A group of 16 columns and up to four rows fill eight accumulators.
 */
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2      __attribute__((target("avx2,fma")))
#define AVX2_TILE static inline __attribute__((always_inline)) AVX2

enum { ROWS_MAX = 4, HALF = 8 };

/* One group of 16 columns, `rows` rows: 2 * rows accumulators. */
AVX2_TILE void multiply(const struct tile_product *p, int first_row, int group, const int rows)
{
    __m256 sum[ROWS_MAX][2];
    const bf16 *a = p->a + (size_t)first_row * p->ld_a;
    const bf16 *b = p->b + (size_t)group * p->group_stride;
    float *acc = p->acc + (size_t)first_row * p->ld_acc + (size_t)group * TILE_GROUP;
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            sum[r][h] = p->resume ? _mm256_loadu_ps(acc + (size_t)r * p->ld_acc + h * HALF)
                                  : _mm256_setzero_ps();
    for (size_t pair = 0; pair < (size_t)p->n_pairs; pair++) {
        const bf16 *words = b + pair * p->pair_stride;
        _mm_prefetch((const char *)(words + 16 * p->pair_stride), _MM_HINT_T0);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i both = _mm256_load_si256((const __m256i *)(words + h * 2 * HALF));
            __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const bf16 *x = a + (size_t)r * p->ld_a + 2 * pair;
                sum[r][h] = _mm256_fmadd_ps(even, _mm256_set1_ps(bf16_to_f32(x[0])), sum[r][h]);
                sum[r][h] = _mm256_fmadd_ps(odd, _mm256_set1_ps(bf16_to_f32(x[1])), sum[r][h]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            _mm256_storeu_ps(acc + (size_t)r * p->ld_acc + h * HALF, sum[r][h]);
}

AVX2 void tile_multiply_avx2(const struct tile_product *p)
{
    for (int row = 0; row < p->n_rows; row += ROWS_MAX)
        for (int group = 0; group < p->n_groups; group++) {
            switch (p->n_rows - row) {
            case 1:
                multiply(p, row, group, 1);
                break;
            case 2:
                multiply(p, row, group, 2);
                break;
            case 3:
                multiply(p, row, group, 3);
                break;
            default:
                multiply(p, row, group, 4);
            }
        }
}
#endif
