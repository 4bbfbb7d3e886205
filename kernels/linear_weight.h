/*
 * linear_weight.h - the inside of a packed matrix, for linear.c and the versions of linear() only.
 */
#ifndef MGPT_KERNELS_LINEAR_WEIGHT_H
#define MGPT_KERNELS_LINEAR_WEIGHT_H

#include "kernels/linear.h"

enum {
    LINEAR_GROUP = 16,
    LINEAR_PANEL_GROUPS = 4,
    LINEAR_INPUTS_MULTIPLE = 32 /* of a bf16 matrix: one tile of AMX */
};

struct linear_weight {
    struct linear_weight_options options;
    struct stream *stream;
    int n_groups;     /* of 16 outputs, the last padded */
    int strip_groups; /* bf16: tile_weight_groups() */
    int n_in_padded;  /* bf16: to LINEAR_INPUTS_MULTIPLE */
    void *matrix; /* on the CPU as linear.c packs it; on a device [n_out, n_in] as files have it */
    float *bias;  /* [n_groups * 16] or NULL */
    size_t matrix_bytes, bias_bytes;
};

/* Where a group begins, in elements from the matrix' start. */
size_t linear_weight_group_offset(const struct linear_weight *weight, int group);

/* Groups in a panel of 64 outputs: 4 but for the last. */
int linear_weight_panel_groups(const struct linear_weight *weight, int panel);

struct linear_launch {
    void *y; /* [n_rows, n_out] of y_dtype */
    const void *x;
    const struct linear_weight *weight;
    enum dtype y_dtype;
    int first_out, n_out, n_rows;
};

enum status linear_ref(const struct linear_launch *launch, struct stream *stream); /* f32 */
enum status linear_cpu(const struct linear_launch *launch, struct stream *stream); /* bf16 */

#endif
