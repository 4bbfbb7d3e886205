/*
 * elementwise.h - the arguments of the operations on single rows, shared by dispatch, f32 twin and
 * fast version.
 */
#ifndef MGPT_KERNELS_ELEMENTWISE_H
#define MGPT_KERNELS_ELEMENTWISE_H

#include "kernels/stream.h"

struct rmsnorm_launch {
    void *y;
    const void *x;
    void *x_updated;   /* x, or NULL where nothing is added */
    const void *delta; /* or NULL */
    const float *weight;
    int hidden;
    float eps;
};

struct add_launch {
    void *x;
    const void *delta;
    int hidden;
};

struct silu_mul_launch {
    void *y;
    const void *gate_up;
    int inter;
};

/* f32 */
void rmsnorm_ref(const struct rmsnorm_launch *launch, int first, int last);
void add_ref(const struct add_launch *launch, int first, int last);
void silu_mul_ref(const struct silu_mul_launch *launch, int first, int last);

/* bf16 */
void rmsnorm_cpu(const struct rmsnorm_launch *launch, int first, int last, enum code_path path);
void add_cpu(const struct add_launch *launch, int first, int last, enum code_path path);
void silu_mul_cpu(const struct silu_mul_launch *launch, int first, int last, enum code_path path);

#endif
