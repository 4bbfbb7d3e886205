/*
 * picture_fuzz.h - what the fuzz targets of the three picture formats share.
 */
#ifndef MGPT_TESTS_FUZZ_PICTURE_FUZZ_H
#define MGPT_TESTS_FUZZ_PICTURE_FUZZ_H

#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"
#include "model/crop.h"
#include "model/exif.h"
#include "model/picture_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

enum { FUZZ_SIDE_MAX = 512, FUZZ_PIXELS_MAX = 65536 };

static void crop_and_write(const struct picture *picture)
{
    struct sizes sizes;
    struct picture *crop;
    struct error err;
    CHECK(sizes_init(&sizes, 64, &err) == STATUS_OK);
    CHECK(crop_to_sizes(&crop, picture, &sizes, &err) == STATUS_OK);
    uint8_t *bytes;
    size_t n;
    struct picture_write_options options = {.format = PICTURE_PNG};
    CHECK(picture_write(&bytes, &n, crop, &options, &err) == STATUS_OK);
    free(bytes);
    picture_destroy(crop);
    sizes_fini(&sizes);
}

static int picture_fuzz(const uint8_t *bytes, size_t n_bytes, picture_reader reader)
{
    struct picture_limits limits = {
        .side_max = FUZZ_SIDE_MAX, .pixels_max = FUZZ_PIXELS_MAX, .bytes_max = 1 << 20};
    struct picture *picture;
    struct error err = {0};
    int orientation = 0;
    enum status st = reader(&picture, &orientation, bytes, n_bytes, &limits, &err);
    CHECK((st == STATUS_OK) == (picture != NULL));
    if (st != STATUS_OK) {
        CHECK(err.text[0]);
        return 0;
    }
    CHECK(picture->width <= FUZZ_SIDE_MAX && picture->height <= FUZZ_SIDE_MAX);
    CHECK(orientation >= 1 && orientation <= 8);
    CHECK(exif_turn_upright(&picture, orientation, &err) == STATUS_OK);
    crop_and_write(picture);
    picture_destroy(picture);
    return 0;
}

#endif
