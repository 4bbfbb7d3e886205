/*
 * rmsnorm.h - the norm in front of (or, with swin_norm, behind) each block, and of the last hidden
 * state.
 */
#ifndef MGPT_KERNELS_RMSNORM_H
#define MGPT_KERNELS_RMSNORM_H

#include "kernels/stream.h"

/*
 * y = x / sqrt(mean(x^2) + eps) * weight, each row alone; sums in f32 in a fixed order, rounded
 * once at the end.
 *
 * y, x: [n_rows, hidden] of `dtype`, may be the same.  weight: f32 [hidden].
 * Source: Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4, with eps inside the root as the
 * checkpoints expect.
 */
enum status rmsnorm(void *y, const void *x, const float *weight, enum dtype dtype, int n_rows,
                    int hidden, float eps, struct stream *stream);

/*
 * x += delta, then y = rmsnorm(x): bit-equal to add() followed by rmsnorm(), in one pass.
 */
enum status add_rmsnorm(void *y, void *x, const void *delta, const float *weight, enum dtype dtype,
                        int n_rows, int hidden, float eps, struct stream *stream);

#endif
