/*
 * gumbel.h - guidance of logits, the k-th largest of them and Gumbel noise of tokens, sixteen at a
 * time, the same bits on every machine.
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
 * bounds[i] >= logits[i] / temperature + noise of ids[i], and seldom by more than 0.1: most tokens
 * are ruled out by it, at a fraction of what their noise costs. No logit is NaN; the inverse of the
 * temperature is a normal number.
 */
typedef void (*bound_function)(float *bounds, const float *logits, const int32_t *ids, int n,
                               float inverse_temperature, const struct gumbel_place *place);
bound_function bound_of(enum code_path path);

/*
 * *least: x[i] >= *least holds for the k largest of n numbers and for what is equal to the last of
 * them, and for no other; 1 <= k <= n, none is NaN.
 */
typedef void (*kth_function)(float *least, const float *x, int n, int k);
kth_function kth_of(enum code_path path);

/*
 * out[i] = u[i] + guidance * (c[i] - u[i]), or c[i] where u is NULL, with one zero only.
 * *not_numbers: set when any of them is NaN.
 */
typedef void (*guide_function)(float *out, const float *c, const float *u, float guidance, int n,
                               int *not_numbers);
guide_function guide_of(enum code_path path);

#endif
