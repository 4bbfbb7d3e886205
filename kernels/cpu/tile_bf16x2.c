/*
 * tile_bf16x2.c - two by two tiles of sums; in a step of 32 products a's low parts meet b's high
 * ones, then a's high parts both of b.
 *
 * tile_bf16x2_test.c compiles this file a second time against a model of the tiles (AMX_MODEL).
 */
#include "kernels/cpu/tile_bf16x2.h"

#include "base/check.h"
#include "kernels/cpu/amx.h"

enum { TILE_NUMBERS = AMX_TILE_ROWS * AMX_ROW_BYTES / (int)sizeof(bf16) };

#ifndef AMX_MODEL
bool tile_bf16x2_available(enum code_path path)
{
    return path == CODE_PATH_AMX;
}

/* A step: of each group the high parts, then the low ones, as [pairs of k][16][2]. */
void tile_bf16x2_pack(void *to, const float *b, int n, int k)
{
    bf16 *at = to;
    for (int step = 0; step < k; step += TILE_BF16X2_STEP)
        for (int group = 0; group < n; group += TILE_BF16X2_LANE, at += 2 * TILE_NUMBERS)
            for (int i = 0; i < TILE_NUMBERS; i++) {
                int pair = i / (2 * TILE_BF16X2_LANE), column = i / 2 % TILE_BF16X2_LANE;
                float x =
                    b[(size_t)(step + 2 * pair + i % 2) * (size_t)n + (size_t)(group + column)];
                at[i] = bf16_from_f32(x);
                at[TILE_NUMBERS + i] = bf16_from_f32(x - bf16_to_f32(at[i]));
            }
}
#endif

#if defined(__x86_64__)
#include "kernels/cpu/amx_operations.h"

/* Sums are in tiles 0 to 3, of row tile i and group g in 2 i + g; a in 4 and 5, b in 6 and 7. */
struct block {
    float *c;
    size_t c_stride;
    struct bf16x2_rows a; /* of its first row */
    const bf16 *b;        /* of its first group */
    int n_steps, b_step;  /* b_step: bf16 from a step to the next */
    bool add;
};

#define C_AT(row, group)                                                                           \
    (x->c + (size_t)(row)*AMX_TILE_ROWS * x->c_stride + (size_t)(group)*TILE_BF16X2_LANE)
#define BEGIN(tile, row, group)                                                                    \
    do {                                                                                           \
        if (x->add)                                                                                \
            LOAD(tile, C_AT(row, group), x->c_stride * sizeof(float));                             \
        else                                                                                       \
            ZERO(tile);                                                                            \
    } while (0)
#define END(tile, row, group) STORE(tile, C_AT(row, group), x->c_stride * sizeof(float))
#define LOAD_A(tile, part, row)                                                                    \
    LOAD(tile, x->a.part + (size_t)(row)*AMX_TILE_ROWS * x->a.stride + step * TILE_BF16X2_STEP,    \
         x->a.stride * sizeof(bf16))
#define LOAD_B(tile, group, low)                                                                   \
    LOAD(tile, x->b + (size_t)step * (size_t)x->b_step + (2 * (group) + (low)) * TILE_NUMBERS,     \
         AMX_ROW_BYTES)

/* two_rows and two_groups are constants. */
AMX_INLINE void multiply_block(const struct block *x, const int two_rows, const int two_groups)
{
#define EACH_SUM(OPERATION)                                                                        \
    do {                                                                                           \
        OPERATION(0, 0, 0);                                                                        \
        if (two_groups)                                                                            \
            OPERATION(1, 0, 1);                                                                    \
        if (two_rows)                                                                              \
            OPERATION(2, 1, 0);                                                                    \
        if (two_rows && two_groups)                                                                \
            OPERATION(3, 1, 1);                                                                    \
    } while (0)
#define MULTIPLY_ALL()                                                                             \
    do {                                                                                           \
        MULTIPLY(0, 4, 6);                                                                         \
        if (two_groups)                                                                            \
            MULTIPLY(1, 4, 7);                                                                     \
        if (two_rows)                                                                              \
            MULTIPLY(2, 5, 6);                                                                     \
        if (two_rows && two_groups)                                                                \
            MULTIPLY(3, 5, 7);                                                                     \
    } while (0)
    EACH_SUM(BEGIN);
    for (int step = 0; step < x->n_steps; step++) {
        LOAD_A(4, low, 0);
        if (two_rows)
            LOAD_A(5, low, 1);
        LOAD_B(6, 0, 0);
        if (two_groups)
            LOAD_B(7, 1, 0);
        MULTIPLY_ALL();
        LOAD_A(4, high, 0);
        if (two_rows)
            LOAD_A(5, high, 1);
        MULTIPLY_ALL();
        LOAD_B(6, 0, 1);
        if (two_groups)
            LOAD_B(7, 1, 1);
        MULTIPLY_ALL();
    }
    EACH_SUM(END);
}

AMX void tile_bf16x2_begin(void)
{
    const struct amx_config config = amx_config_of(0, 0);
    CONFIGURE(&config);
}

AMX void tile_bf16x2_end(void)
{
    RELEASE();
}

AMX void tile_bf16x2_multiply(float *c, size_t c_stride, const struct bf16x2_rows *a, const void *b,
                              int m, int n, int k, bool add)
{
    struct block x = {.c = c,
                      .c_stride = c_stride,
                      .a = *a,
                      .b = b,
                      .n_steps = k / TILE_BF16X2_STEP,
                      .b_step = 2 * n / TILE_BF16X2_LANE * TILE_NUMBERS,
                      .add = add};
    const bool two_groups = n > TILE_BF16X2_LANE;
    for (int row = 0; row < m; row += 2 * AMX_TILE_ROWS) {
        const bool two_rows = row + AMX_TILE_ROWS < m;
        if (two_rows && two_groups)
            multiply_block(&x, 1, 1);
        else if (two_rows)
            multiply_block(&x, 1, 0);
        else if (two_groups)
            multiply_block(&x, 0, 1);
        else
            multiply_block(&x, 0, 0);
        x.c += 2 * AMX_TILE_ROWS * c_stride;
        x.a.high += 2 * AMX_TILE_ROWS * a->stride;
        x.a.low += 2 * AMX_TILE_ROWS * a->stride;
    }
}
#else /* not available */
void tile_bf16x2_begin(void)
{
    CHECK(false);
}

void tile_bf16x2_end(void)
{
    CHECK(false);
}

void tile_bf16x2_multiply(float *c, size_t c_stride, const struct bf16x2_rows *a, const void *b,
                          int m, int n, int k, bool add)
{
    (void)c, (void)c_stride, (void)a, (void)b, (void)m, (void)n, (void)k, (void)add;
    CHECK(false);
}
#endif
