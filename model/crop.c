/*
 * crop.c - chooses the size, resizes, cuts and flattens, in the reference's order.
 */
#include "model/crop.h"

#include <limits.h>
#include <math.h>

#include "model/resize.h"

/* Halves while both sides are at least twice the crop's. *halved is NULL when they are not. */
static enum status halve(struct picture **halved, const struct picture *in,
                         struct picture_size crop, struct error *err)
{
    *halved = NULL;
    const struct picture *now = in;
    while (now->width >= 2 * crop.width && now->height >= 2 * crop.height) {
        struct picture *half;
        enum status st = resize(&half, now, now->width / 2, now->height / 2, RESIZE_BOX, err);
        picture_destroy(*halved);
        *halved = half;
        if (st != STATUS_OK)
            return st;
        now = half;
    }
    return STATUS_OK;
}

/* The size that covers the crop, and the crop in its middle. */
static enum status place(struct resize_target *target, const struct picture *in,
                         struct picture_size crop, struct error *err)
{
    double x = (double)crop.width / in->width;
    double y = (double)crop.height / in->height;
    double scale = x > y ? x : y;
    /* nearbyint() rounds halves to even in the default mode, as Python's round() does. */
    double width = nearbyint(in->width * scale);
    double height = nearbyint(in->height * scale);
    if (width > INT_MAX || height > INT_MAX)
        return error_set(err, STATUS_INVALID,
                         "a picture of %dx%d is too narrow for a crop of %dx%d", in->width,
                         in->height, crop.width, crop.height);
    *target = (struct resize_target){.width = (int)width,
                                     .height = (int)height,
                                     .left = ((int)width - crop.width) / 2,
                                     .top = ((int)height - crop.height) / 2,
                                     .part_width = crop.width,
                                     .part_height = crop.height};
    return STATUS_OK;
}

enum status crop_to_sizes(struct picture **out, const struct picture *in, const struct sizes *sizes,
                          struct error *err)
{
    *out = NULL;
    struct picture_size crop = sizes_choose(sizes, in->width, in->height);
    struct picture *halved;
    enum status st = halve(&halved, in, crop, err);
    const struct picture *now = halved ? halved : in;
    struct resize_target target;
    struct picture *cut = NULL;
    if (st == STATUS_OK)
        st = place(&target, now, crop, err);
    if (st == STATUS_OK)
        st = resize_part(&cut, now, &target, RESIZE_BICUBIC, err);
    if (st == STATUS_OK)
        st = picture_to_rgb(out, cut, err);
    picture_destroy(cut);
    picture_destroy(halved);
    return st;
}
