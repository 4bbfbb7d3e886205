/*
 * tile.c - the version of the tile product that a code path uses, and the portable one.
 */
#include "kernels/cpu/tile.h"

typedef float f32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));

enum { ROWS_MAX = 2 };

/* `rows` rows (a constant) and one group: the compiler turns the sixteen columns into what the
 * baseline has, and widens b once for all rows. */
static inline __attribute__((always_inline)) void multiply_group(const struct tile_product *p,
                                                                 int row, int group, const int rows)
{
    const bf16 *a = p->a + (size_t)row * p->ld_a;
    const bf16 *b = p->b + (size_t)group * p->group_stride;
    float *acc = p->acc + (size_t)row * p->ld_acc + (size_t)group * TILE_GROUP;
    f32x16 sum[ROWS_MAX] = {{0}};
    for (int r = 0; r < rows && p->resume; r++)
        memcpy(&sum[r], acc + (size_t)r * p->ld_acc, sizeof(sum[r]));
    const int run = p->strip_stride ? TILE_STRIP_PAIRS : p->n_pairs;
    for (int first = 0; first < p->n_pairs; first += run) {
        const bf16 *words = b + tile_pair_at(p, first);
        const int end = first + run < p->n_pairs ? first + run : p->n_pairs;
        for (int pair = first; pair < end; pair++, words += p->pair_stride) {
            u32x16 both, low, high;
            f32x16 even, odd;
            memcpy(&both, words, sizeof(both));
            low = both << 16;
            high = both & 0xffff0000u;
            memcpy(&even, &low, sizeof(even));
            memcpy(&odd, &high, sizeof(odd));
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                const bf16 *x = a + (size_t)r * p->ld_a + 2 * pair;
                sum[r] += even * bf16_to_f32(x[0]);
                sum[r] += odd * bf16_to_f32(x[1]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        memcpy(acc + (size_t)r * p->ld_acc, &sum[r], sizeof(sum[r]));
}

void tile_multiply_portable(const struct tile_product *product)
{
    for (int i = 0; i < product->n_products; i++) {
        struct tile_product p = tile_single(product, i);
        for (int group = 0; group < p.n_groups; group++) {
            int row = 0;
            for (; row + ROWS_MAX <= p.n_rows; row += ROWS_MAX)
                multiply_group(&p, row, group, ROWS_MAX);
            if (row < p.n_rows)
                multiply_group(&p, row, group, 1);
        }
    }
}

const struct tile_layout *tile_layout_of(enum code_path path)
{
#if defined(__x86_64__)
    if (path == CODE_PATH_AMX)
        return &tile_layout_amx;
    if (path == CODE_PATH_AVX2)
        return &tile_layout_avx2;
#endif
    (void)path;
    return NULL;
}

int tile_weight_place(enum code_path path, int column, int input)
{
    if (path == CODE_PATH_AVX2)
        return column / 4 * 8 + input * 4 + column % 4;
    return 2 * column + input;
}

int tile_weight_groups(enum code_path path)
{
    return path == CODE_PATH_AMX ? 2 : TILE_GROUPS_MAX;
}

int tile_products_abreast(enum code_path path, int n_rows)
{
    return path == CODE_PATH_AVX2 && n_rows <= 2 ? 4 : 1;
}

tile_multiply tile_multiply_any_of(enum code_path path)
{
#if defined(__x86_64__)
    if (path == CODE_PATH_AMX)
        return tile_multiply_beside_amx;
    if (path == CODE_PATH_AVX512BF16)
        return tile_multiply_avx512bf16;
    if (path == CODE_PATH_AVX2)
        return tile_multiply_avx2;
#endif
    (void)path;
    return tile_multiply_portable;
}

tile_multiply tile_multiply_of(enum code_path path)
{
#if defined(__x86_64__)
    if (path == CODE_PATH_AMX)
        return tile_multiply_amx;
    if (path == CODE_PATH_AVX2)
        return tile_multiply_weights_avx2;
#endif
    return tile_multiply_any_of(path);
}
