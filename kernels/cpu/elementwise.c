/*
 * elementwise.c - rmsnorm, add and silu_mul of bf16 rows: widened, computed in f32, rounded once.
 */
#include "kernels/elementwise.h"

#include <math.h>

#include "kernels/cpu/vector.h"

VECTOR_INLINE int lanes_at(int i, int n)
{
    return n - i < LANES ? n - i : LANES;
}

VECTOR_INLINE void norm_row(const struct rmsnorm_launch *l, int row)
{
    size_t at = (size_t)row * (size_t)l->hidden;
    f32x16 squares = {0};
    for (int i = 0; i < l->hidden; i += LANES) {
        int n = lanes_at(i, l->hidden);
        f32x16 x = load_lanes(l->x, DTYPE_BF16, at + (size_t)i, n);
        if (l->delta) {
            x += load_lanes(l->delta, DTYPE_BF16, at + (size_t)i, n);
            store_lanes(l->x_updated, DTYPE_BF16, at + (size_t)i, x, n);
            x = load_lanes(l->x, DTYPE_BF16, at + (size_t)i, n);
        }
        squares += x * x;
    }
    float scale = 1.0f / sqrtf(sum_lanes(squares) / (float)l->hidden + l->eps);
    for (int i = 0; i < l->hidden; i += LANES) {
        int n = lanes_at(i, l->hidden);
        f32x16 x = load_lanes(l->x, DTYPE_BF16, at + (size_t)i, n);
        f32x16 y = x * scale * load_lanes(l->weight, DTYPE_F32, (size_t)i, n);
        store_lanes(l->y, DTYPE_BF16, at + (size_t)i, y, n);
    }
}

VECTOR_INLINE void norm_rows_body(const struct rmsnorm_launch *l, int first, int last)
{
    for (int row = first; row < last; row++)
        norm_row(l, row);
}
FOR_EACH_PATH(norm_rows, (const struct rmsnorm_launch *l, int first, int last), (l, first, last))

void rmsnorm_cpu(const struct rmsnorm_launch *launch, int first, int last, enum code_path path)
{
    norm_rows_of(path)(launch, first, last);
}

VECTOR_INLINE void add_rows_body(const struct add_launch *l, int first, int last)
{
    int64_t end = (int64_t)last * l->hidden;
    for (int64_t i = (int64_t)first * l->hidden; i < end; i += LANES) {
        int n = end - i < LANES ? (int)(end - i) : LANES;
        f32x16 sum = load_lanes(l->x, DTYPE_BF16, (size_t)i, n) +
                     load_lanes(l->delta, DTYPE_BF16, (size_t)i, n);
        store_lanes(l->x, DTYPE_BF16, (size_t)i, sum, n);
    }
}
FOR_EACH_PATH(add_rows, (const struct add_launch *l, int first, int last), (l, first, last))

void add_cpu(const struct add_launch *launch, int first, int last, enum code_path path)
{
    add_rows_of(path)(launch, first, last);
}

VECTOR_INLINE void silu_mul_rows_body(const struct silu_mul_launch *l, int first, int last)
{
    for (int row = first; row < last; row++) {
        size_t gate_at = 2 * (size_t)row * (size_t)l->inter, up_at = gate_at + (size_t)l->inter;
        size_t at = (size_t)row * (size_t)l->inter;
        for (int i = 0; i < l->inter; i += LANES) {
            int n = lanes_at(i, l->inter);
            f32x16 gate = load_lanes(l->gate_up, DTYPE_BF16, gate_at + (size_t)i, n);
            f32x16 up = load_lanes(l->gate_up, DTYPE_BF16, up_at + (size_t)i, n);
            /* e^88 is near the largest float; beyond it the quotient is as good as zero. */
            f32x16 e = exp_lanes(-max_lanes(gate, (f32x16){0} - 88.0f));
            store_lanes(l->y, DTYPE_BF16, at + (size_t)i, gate / (1.0f + e) * up, n);
        }
    }
}
FOR_EACH_PATH(silu_mul_rows, (const struct silu_mul_launch *l, int first, int last),
              (l, first, last))

void silu_mul_cpu(const struct silu_mul_launch *launch, int first, int last, enum code_path path)
{
    silu_mul_rows_of(path)(launch, first, last);
}
