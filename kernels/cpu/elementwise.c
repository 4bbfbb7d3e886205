/*
 * elementwise.c - rmsnorm, add and silu_mul of bf16 rows: widened, computed in f32, rounded once.
 */
#include "kernels/elementwise.h"

#include <math.h>

#include "kernels/cpu/vector.h"

/* What a product of many rows wrote lies in memory, past the caches (linear.c), and weights pushed
 * x out of them: both are fetched so many numbers ahead, a line for every two vectors. Left to
 * itself the processor begins anew with each row: a norm of 32 rows takes half as long again. */
enum { AHEAD = 2048 };

VECTOR_INLINE void fetch_ahead(const void *x, size_t at, int i)
{
    if (i % (2 * LANES) == 0)
        __builtin_prefetch((const bf16 *)x + at + AHEAD);
}

/* x + delta of n lanes from `at` on, rounded, where there is a delta. */
VECTOR_INLINE f32x16 updated(const struct rmsnorm_launch *l, size_t at, int n, const int has_delta)
{
    if (has_delta) {
        f32x16 sum = load_lanes(l->x, DTYPE_BF16, at, n) + load_lanes(l->delta, DTYPE_BF16, at, n);
        store_lanes(l->x_updated, DTYPE_BF16, at, sum, n);
    }
    return load_lanes(l->x, DTYPE_BF16, at, n);
}

VECTOR_INLINE float sum_of_squares(const struct rmsnorm_launch *l, size_t at, const int has_delta)
{
    int i = 0;
    f32x16 squares = {0};
    for (; i + LANES <= l->hidden; i += LANES) {
        fetch_ahead(l->x, at + (size_t)i, i);
        if (has_delta)
            fetch_ahead(l->delta, at + (size_t)i, i);
        f32x16 x = updated(l, at + (size_t)i, LANES, has_delta);
        squares += x * x;
    }
    if (i < l->hidden) {
        f32x16 x = updated(l, at + (size_t)i, l->hidden - i, has_delta);
        squares += x * x;
    }
    return sum_lanes(squares);
}

VECTOR_INLINE void scale_lanes(const struct rmsnorm_launch *l, size_t at, int i, int n, float scale)
{
    f32x16 x = load_lanes(l->x, DTYPE_BF16, at + (size_t)i, n);
    f32x16 y = x * scale * load_lanes(l->weight, DTYPE_F32, (size_t)i, n);
    store_lanes(l->y, DTYPE_BF16, at + (size_t)i, y, n);
}

VECTOR_INLINE void norm_row(const struct rmsnorm_launch *l, int row)
{
    size_t at = (size_t)row * (size_t)l->hidden;
    float squares = l->delta ? sum_of_squares(l, at, 1) : sum_of_squares(l, at, 0);
    float scale = 1.0f / sqrtf(squares / (float)l->hidden + l->eps);
    int i = 0;
    for (; i + LANES <= l->hidden; i += LANES)
        scale_lanes(l, at, i, LANES, scale);
    if (i < l->hidden)
        scale_lanes(l, at, i, l->hidden - i, scale);
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

VECTOR_INLINE void add_lanes(const struct add_launch *l, int64_t at, int n)
{
    f32x16 sum = load_lanes(l->x, DTYPE_BF16, (size_t)at, n) +
                 load_lanes(l->delta, DTYPE_BF16, (size_t)at, n);
    store_lanes(l->x, DTYPE_BF16, (size_t)at, sum, n);
}

VECTOR_INLINE void add_rows_body(const struct add_launch *l, int first, int last)
{
    int64_t i = (int64_t)first * l->hidden, end = (int64_t)last * l->hidden;
    for (; i + LANES <= end; i += LANES)
        add_lanes(l, i, LANES);
    if (i < end)
        add_lanes(l, i, (int)(end - i));
}
FOR_EACH_PATH(add_rows, (const struct add_launch *l, int first, int last), (l, first, last))

void add_cpu(const struct add_launch *launch, int first, int last, enum code_path path)
{
    add_rows_of(path)(launch, first, last);
}

VECTOR_INLINE void silu_mul_lanes(const struct silu_mul_launch *l, int row, int i, int n)
{
    size_t inter = (size_t)l->inter, at = (size_t)row * inter + (size_t)i;
    size_t gate_at = at + (size_t)row * inter;
    fetch_ahead(l->gate_up, gate_at, i);
    fetch_ahead(l->gate_up, gate_at + inter, i);
    f32x16 gate = load_lanes(l->gate_up, DTYPE_BF16, gate_at, n);
    f32x16 up = load_lanes(l->gate_up, DTYPE_BF16, gate_at + inter, n);
    /* e^88 is near the largest float; beyond it the quotient is as good as zero. */
    f32x16 e = exp_lanes(-max_lanes(gate, (f32x16){0} - 88.0f));
    store_lanes(l->y, DTYPE_BF16, at, gate / (1.0f + e) * up, n);
}

VECTOR_INLINE void silu_mul_rows_body(const struct silu_mul_launch *l, int first, int last)
{
    for (int row = first; row < last; row++) {
        int i = 0;
        for (; i + LANES <= l->inter; i += LANES)
            silu_mul_lanes(l, row, i, LANES);
        if (i < l->inter)
            silu_mul_lanes(l, row, i, l->inter - i);
    }
}
FOR_EACH_PATH(silu_mul_rows, (const struct silu_mul_launch *l, int first, int last),
              (l, first, last))

void silu_mul_cpu(const struct silu_mul_launch *launch, int first, int last, enum code_path path)
{
    silu_mul_rows_of(path)(launch, first, last);
}
