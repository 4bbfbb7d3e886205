/*
 * silu_mul.h - the gate of the MLP.
 */
#ifndef MGPT_KERNELS_SILU_MUL_H
#define MGPT_KERNELS_SILU_MUL_H

#include "kernels/stream.h"

/*
 * y = gate / (1 + exp(-gate)) * up, in f32, rounded once.
 *
 * gate_up: [n_rows, 2 * inter] of `dtype`: in each row the gate, then up, as one linear_weight of
 * both gives them. y: [n_rows, inter] of `dtype`; does not overlap gate_up.
 */
enum status silu_mul(void *y, const void *gate_up, enum dtype dtype, int n_rows, int inter,
                     struct stream *stream);

#endif
