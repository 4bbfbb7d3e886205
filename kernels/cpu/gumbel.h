/*
 * gumbel.h - guidance of logits and Gumbel noise of tokens, sixteen at a time, the same bits on
 * every machine.
 */
#ifndef MGPT_KERNELS_CPU_GUMBEL_H
#define MGPT_KERNELS_CPU_GUMBEL_H

#include "kernels/sample.h"

enum { GUMBEL_LANES = 16 };

/* noise[i] = -log(-log(u)) of ids[i], u as sample.h says. */
typedef void (*gumbel_function)(double noise[GUMBEL_LANES], const int32_t ids[GUMBEL_LANES],
                                const struct gumbel_place *place);
gumbel_function gumbel_of(enum code_path path);

/*
 * out[i] = u[i] + guidance * (c[i] - u[i]), or c[i] where u is NULL, with one zero only.
 * *not_numbers: set when any of them is NaN.
 */
typedef void (*guide_function)(float *out, const float *c, const float *u, float guidance, int n,
                               int *not_numbers);
guide_function guide_of(enum code_path path);

#endif
