/*
 * elementwise.c - the f32 twins of rmsnorm, add and silu_mul, as their contracts are written.
 */
#include "kernels/elementwise.h"

#include <math.h>

enum { LANES = 16 };

/* Sixteen partial sums, then halves onto halves: better than one chain, and in a fixed order. */
static float sum_of_squares(const float *x, int n)
{
    float lanes[LANES] = {0};
    for (int i = 0; i < n; i++)
        lanes[i % LANES] += x[i] * x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

void rmsnorm_ref(const struct rmsnorm_launch *l, int first, int last)
{
    for (int r = first; r < last; r++) {
        size_t at = (size_t)r * (size_t)l->hidden;
        const float *x = (const float *)l->x + at;
        float *y = (float *)l->y + at;
        if (l->delta)
            for (int i = 0; i < l->hidden; i++)
                ((float *)l->x_updated)[at + (size_t)i] +=
                    ((const float *)l->delta)[at + (size_t)i];
        float scale = 1.0f / sqrtf(sum_of_squares(x, l->hidden) / (float)l->hidden + l->eps);
        for (int i = 0; i < l->hidden; i++)
            y[i] = x[i] * scale * l->weight[i];
    }
}

void add_ref(const struct add_launch *l, int first, int last)
{
    float *x = l->x;
    const float *delta = l->delta;
    for (size_t i = (size_t)first * (size_t)l->hidden; i < (size_t)last * (size_t)l->hidden; i++)
        x[i] += delta[i];
}

void silu_mul_ref(const struct silu_mul_launch *l, int first, int last)
{
    for (int r = first; r < last; r++) {
        const float *gate = (const float *)l->gate_up + 2 * (size_t)r * (size_t)l->inter;
        const float *up = gate + l->inter;
        float *y = (float *)l->y + (size_t)r * (size_t)l->inter;
        for (int i = 0; i < l->inter; i++)
            y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}
