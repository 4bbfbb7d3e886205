/*
 * crop.h - a picture of any size and channels to RGB of the listed size that suits it.
 *
 * Source: the reference's preparation of pictures, with the crop in the middle.
 */
#ifndef MGPT_MODEL_CROP_H
#define MGPT_MODEL_CROP_H

#include "model/picture.h"
#include "model/sizes.h"

/* Halves, resizes, cuts out the middle, lays what is transparent over white. *out has 3 channels
 * and a size of `sizes`. */
enum status crop_to_sizes(struct picture **out, const struct picture *in, const struct sizes *sizes,
                          struct error *err);

#endif
