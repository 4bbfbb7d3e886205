/*
 * norm_row.h - the reading side of conv2d: pixels copied through scale, shift and swish.
 */
#ifndef MGPT_KERNELS_CPU_NORM_ROW_H
#define MGPT_KERNELS_CPU_NORM_ROW_H

#include "kernels/conv2d.h"
#include "kernels/stream.h"

/*
 * dst = f(src * scale + shift) for n_pixels pixels of n_channels (a multiple of 16 when norm is not
 * NULL); NULL copies. The bits are the same on every path.
 */
void norm_row(float *dst, const float *src, int n_pixels, int n_channels,
              const struct conv2d_norm *norm, enum code_path path);

/* The same as two parts (tile_bf16x2.h), swish within 2^-19 of itself where more than 1e-11 is
 * left; n_channels is a multiple of 16. For machines with AMX. */
void norm_row_bf16x2(bf16 *high, bf16 *low, const float *src, int n_pixels, int n_channels,
                     const struct conv2d_norm *norm);

#endif
