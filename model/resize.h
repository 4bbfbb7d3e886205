/*
 * resize.h - Pillow's resize to the last bit: box and bicubic, horizontal, then vertical.
 *
 * Source: what Pillow's Image.resize computes: weights in fixed point of 22 bits, sums rounded by
 * half and clipped to 8 bits after each pass; alpha is multiplied in before and divided out after.
 * (Pillow 13 does the vertical pass first where that is cheaper; the reference's did not.)
 */
#ifndef MGPT_MODEL_RESIZE_H
#define MGPT_MODEL_RESIZE_H

#include "model/picture.h"

enum resize_filter {
    RESIZE_BOX,
    RESIZE_BICUBIC /* a = -0.5, support grows with the reduction */
};

/* The whole result may be far larger than the part of it that is wanted: only that part is
 * computed. */
struct resize_target {
    int width, height;           /* of the whole */
    int left, top;               /* where the part begins */
    int part_width, part_height; /* inside the whole */
};

/*
 * *out is a new picture of part_width x part_height with the channels of `in`.
 * STATUS_INVALID: a side below 1, a part outside the whole.
 */
enum status resize_part(struct picture **out, const struct picture *in,
                        const struct resize_target *target, enum resize_filter filter,
                        struct error *err);

/* All of it. */
enum status resize(struct picture **out, const struct picture *in, int width, int height,
                   enum resize_filter filter, struct error *err);

#endif
