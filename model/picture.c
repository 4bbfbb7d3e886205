/*
 * picture.c - allocates pictures.
 */
#include "model/picture.h"

#include <stdbool.h>
#include <stdlib.h>

enum status picture_create(struct picture **out, int width, int height, int channels,
                           struct error *err)
{
    *out = NULL;
    if (width < 1 || width > PICTURE_SIDE_MAX || height < 1 || height > PICTURE_SIDE_MAX)
        return error_set(err, STATUS_INVALID, "a picture of %dx%d, expected sides from 1 to %d",
                         width, height, PICTURE_SIDE_MAX);
    if (channels < 1 || channels > 4)
        return error_set(err, STATUS_INVALID, "a picture of %d channels, expected 1 to 4",
                         channels);
    size_t bytes = (size_t)width * (size_t)height * (size_t)channels;
    if (bytes > PICTURE_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "a picture of %zu bytes, expected at most %d", bytes,
                         PICTURE_BYTES_MAX);
    struct picture *picture = calloc(1, sizeof(*picture));
    uint8_t *pixels = calloc(bytes, 1);
    if (!picture || !pixels) {
        free(picture);
        free(pixels);
        return error_set(err, STATUS_NOMEM, "cannot allocate a picture of %dx%d", width, height);
    }
    *picture =
        (struct picture){.width = width, .height = height, .channels = channels, .pixels = pixels};
    *out = picture;
    return STATUS_OK;
}

void picture_destroy(struct picture *picture)
{
    if (!picture)
        return;
    free(picture->pixels);
    free(picture);
}

/* Over white: (1 - a) * 255 + a * c in double, truncated; exactly c where a is 1. */
static uint8_t over_white(uint8_t color, uint8_t alpha)
{
    double a = alpha / 255.0;
    return (uint8_t)((1 - a) * 255 + a * color);
}

enum status picture_to_rgb(struct picture **out, const struct picture *in, struct error *err)
{
    enum status st = picture_create(out, in->width, in->height, 3, err);
    if (st != STATUS_OK)
        return st;
    bool grey = in->channels < 3;
    bool has_alpha = in->channels == 2 || in->channels == 4;
    size_t n = (size_t)in->width * (size_t)in->height;
    const uint8_t *from = in->pixels;
    uint8_t *to = (*out)->pixels;
    for (; n > 0; n--, from += in->channels, to += 3)
        for (int c = 0; c < 3; c++) {
            uint8_t color = from[grey ? 0 : c];
            to[c] = has_alpha ? over_white(color, from[in->channels - 1]) : color;
        }
    return STATUS_OK;
}

enum status picture_to_rgba(struct picture **out, const struct picture *in, struct error *err)
{
    enum status st = picture_create(out, in->width, in->height, 4, err);
    if (st != STATUS_OK)
        return st;
    bool grey = in->channels < 3;
    bool has_alpha = in->channels == 2 || in->channels == 4;
    size_t n = (size_t)in->width * (size_t)in->height;
    const uint8_t *from = in->pixels;
    uint8_t *to = (*out)->pixels;
    for (; n > 0; n--, from += in->channels, to += 4) {
        for (int c = 0; c < 3; c++)
            to[c] = from[grey ? 0 : c];
        to[3] = has_alpha ? from[in->channels - 1] : 255;
    }
    return STATUS_OK;
}
