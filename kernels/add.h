/*
 * add.h - the residual stream.
 */
#ifndef MGPT_KERNELS_ADD_H
#define MGPT_KERNELS_ADD_H

#include "kernels/stream.h"

/* x += delta, both [n_rows, hidden] of `dtype`; the sum in f32, rounded once. */
enum status add(void *x, const void *delta, enum dtype dtype, int n_rows, int hidden,
                struct stream *stream);

#endif
