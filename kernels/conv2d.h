/*
 * conv2d.h - the convolutions of the VQ-GAN: 1x1 and 3x3, stride 1, halving and doubling, f32.
 *
 * In:      pictures [height, width, channels], rows without gaps; weights [n_out, n_in, kernel,
 * kernel] as files hold them, packed once.   Out: a picture of the same kind. Fused:   the
 * normalisation (and swish) of the input, so that no normalised copy is ever stored; bias; the
 * residual. Numbers: each output is one chain over (row, column, channel) of the kernel, then +
 * bias, then + residual; it does not depend on the number of threads. With AMX, and n_in a multiple
 * of 32, a product is off by up to 2^-16 of itself (cpu/tile_bf16x2.h). CONV2D_UP adds weights that
 * meet the same pixel before the picture is seen (4 of 9 products remain), so it differs from its
 * twin by roundings of weights.
 */
#ifndef MGPT_KERNELS_CONV2D_H
#define MGPT_KERNELS_CONV2D_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct stream;

enum conv2d_kind {
    CONV2D_SAME, /* stride 1, border of zeros kernel / 2 wide: the size stays */
    CONV2D_DOWN, /* 3x3, stride 2, one row of zeros below and one column at the right: even sides
                    halve */
    CONV2D_UP    /* each pixel becomes 2x2 (nearest), then 3x3 of stride 1 */
};

enum { CONV2D_CHANNELS_MAX = 16384 };

struct conv2d_shape {
    int n_in, n_out; /* channels, 1 .. CONV2D_CHANNELS_MAX */
    int kernel;      /* 1 or 3; 3 for DOWN and UP */
    enum conv2d_kind kind;
};

/* Rows or columns of the output for `side` of them in the input. */
static inline int conv2d_side(enum conv2d_kind kind, int side)
{
    return kind == CONV2D_UP ? 2 * side : kind == CONV2D_DOWN ? side / 2 : side;
}

/* How the input is read; channel c of each pixel becomes f(x * scale[c] + shift[c]) before the
 * border is added. */
struct conv2d_norm {
    const float *scale, *shift; /* [n_in], from group_norm(); n_in is a multiple of 16 */
    bool swish;                 /* f(v) = v / (1 + exp(-v)), otherwise f(v) = v */
};

/* Opaque: weights packed for the stream's device, and the bias. */
struct conv2d_weight;

/*
 * Packs weight [n_out, n_in, kernel, kernel] and bias [n_out]; both are copied.
 * STATUS_INVALID: a shape that is not offered.  STATUS_NOMEM.  On error *out is NULL.
 */
enum status conv2d_weight_create(struct conv2d_weight **out, const struct conv2d_shape *shape,
                                 const float *weight, const float *bias, struct stream *stream,
                                 struct error *err);
void conv2d_weight_destroy(struct conv2d_weight *weight); /* NULL is fine */
const struct conv2d_shape *conv2d_weight_shape(const struct conv2d_weight *weight);
size_t conv2d_weight_bytes(const struct conv2d_weight *weight);

/*
 * y = conv(norm(x)) + bias (+ residual).
 *
 * x: [height, width, n_in].  y: [h, w, n_out] with h, w = the sizes after DOWN or UP; it overlaps
 * no x. norm: NULL reads x as it is.  residual: NULL, or like y; it may be y itself. Scratch: a few
 * hundred KiB a thread of the stream's own; it does not grow with the picture. STATUS_INVALID: DOWN
 * of an odd side, a norm for n_in not a multiple of 16.  STATUS_NOMEM: the scratch.
 */
enum status conv2d(float *y, const float *x, const struct conv2d_weight *weight,
                   const struct conv2d_norm *norm, const float *residual, int width, int height,
                   struct stream *stream);

/* The plain twin (ref/conv2d.c) on unpacked weights. */
void conv2d_ref(float *y, const float *x, const struct conv2d_shape *shape, const float *weight,
                const float *bias, const struct conv2d_norm *norm, const float *residual, int width,
                int height);

#endif
