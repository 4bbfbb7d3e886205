/*
 * finite.h - a look for numbers that are infinite or NaN.
 */
#ifndef MGPT_KERNELS_FINITE_H
#define MGPT_KERNELS_FINITE_H

#include "kernels/stream.h"

/*
 * *first = the first row of x with a number that is infinite or NaN, or -1. Waits for the stream.
 *
 * x: [n_rows, hidden] of `dtype`, f32 or bf16.
 */
enum status first_not_finite(int *first, const void *x, enum dtype dtype, int n_rows, int hidden,
                             struct stream *stream);

#endif
