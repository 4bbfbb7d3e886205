/*
 * picture.h - a picture in memory: 8-bit pixels, row by row, no padding.
 */
#ifndef MGPT_MODEL_PICTURE_H
#define MGPT_MODEL_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { PICTURE_SIDE_MAX = 65535, PICTURE_BYTES_MAX = 1 << 30 };

struct picture {
    int width, height;
    int channels;    /* 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; alpha is not premultiplied */
    uint8_t *pixels; /* [height, width, channels] */
};

/* Pixels are zero. STATUS_INVALID: a side or a number of channels that cannot be, or more than
 * PICTURE_BYTES_MAX. */
enum status picture_create(struct picture **out, int width, int height, int channels,
                           struct error *err);
void picture_destroy(struct picture *picture); /* NULL is fine */

/* A new picture of 3 channels: grey in all three, what is transparent laid over white. */
enum status picture_to_rgb(struct picture **out, const struct picture *in, struct error *err);

/* A new picture of 4 channels: grey in three, opaque where there is no alpha. */
enum status picture_to_rgba(struct picture **out, const struct picture *in, struct error *err);

static inline size_t picture_row_bytes(const struct picture *picture)
{
    return (size_t)picture->width * (size_t)picture->channels;
}

static inline size_t picture_bytes(const struct picture *picture)
{
    return picture_row_bytes(picture) * (size_t)picture->height;
}

#endif
