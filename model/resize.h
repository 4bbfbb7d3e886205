/*
 * resize.h - Pillow's resize to the last bit: box and bicubic filters in 8-bit passes, horizontal, then vertical.
 *
 * Source: the resampling that Pillow documents (Image.resize; filters of libImaging) described in fixed point: coefficients
 * of 22 bits, sums rounded by half, clipped to 8 bits after each pass. Alpha is premultiplied before and divided after.
 */
#ifndef MGPT_MODEL_RESIZE_H
#define MGPT_MODEL_RESIZE_H

#include "model/picture.h"

enum resize_filter {
    RESIZE_BOX,
    RESIZE_BICUBIC /* a = -0.5, support grows with the reduction */
};

/* A new picture of width x height with the channels of `in`. */
enum status resize(struct picture **out, const struct picture *in, int width, int height,
                   enum resize_filter filter, struct error *err);

#endif
