/*
 * conv2d_weight.h - weights as the kernels of both backends walk them.
 *
 * Output channels are cut into panels of TILE_F32_COLUMNS (the last may be TILE_F32_LANE wide,
 * filled up with zeros). A panel is [k, columns] with k = (kernel row, kernel column, input
 * channel): the order of the products, and the order in which a patch of pixels lies in memory, so
 * that a kernel row is one run of `taps * n_in` floats. CONV2D_UP has four such matrices, one for
 * each place of an output pixel in its 2x2: there the three rows of the kernel meet two rows of the
 * picture, so their weights are added up, columns likewise. With is_bf16x2 a panel is as
 * tile_bf16x2_pack() makes it, in the same place.
 */
#ifndef MGPT_KERNELS_CONV2D_WEIGHT_H
#define MGPT_KERNELS_CONV2D_WEIGHT_H

#include "kernels/conv2d.h"

struct conv2d_weight {
    struct conv2d_shape shape;
    struct stream *stream; /* whose memory it is */
    int taps;      /* rows (and columns) of the kernel that meet different pixels: 1, 2 (UP) or 3 */
    int n_phases;  /* 4 for UP, else 1 */
    int n_columns; /* n_out, rounded up to TILE_F32_LANE */
    bool is_bf16x2;
    size_t phase_floats; /* taps * taps * n_in * n_columns */
    size_t bytes;        /* of memory */
    float *memory;       /* device: bias [n_columns], then the phases */
};

/* Where a panel begins, in floats behind `memory`. */
static inline size_t conv2d_weight_panel_at(const struct conv2d_weight *weight, int phase,
                                            int first_column)
{
    size_t k = (size_t)weight->taps * weight->taps * weight->shape.n_in;
    return weight->n_columns + phase * weight->phase_floats + k * first_column;
}

#endif
