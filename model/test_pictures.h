/*
 * test_pictures.h - what the tests of pictures share. Include after cmocka.h.
 */
#ifndef MGPT_MODEL_TEST_PICTURES_H
#define MGPT_MODEL_TEST_PICTURES_H

#include "model/picture.h"
#include "model/test_support.h"

static inline json_t *expected_json(void)
{
    return load_json(GOLDEN "pictures/expected.json");
}

static inline int largest_difference(const struct picture *picture, const json_t *pixels)
{
    assert_int_equal(picture_bytes(picture), json_array_size(pixels));
    int largest = 0;
    for (size_t i = 0; i < picture_bytes(picture); i++) {
        int difference =
            abs((int)json_integer_value(json_array_get(pixels, i)) - picture->pixels[i]);
        if (difference > largest)
            largest = difference;
    }
    return largest;
}

/* The formula of make.py: pattern(). */
static inline struct picture *pattern(int width, int height, int channels)
{
    struct picture *p;
    assert_int_equal(picture_create(&p, width, height, channels, NULL), STATUS_OK);
    for (uint64_t i = 0; i < picture_bytes(p); i++)
        p->pixels[i] = (uint8_t)((uint32_t)(i * 2654435761u + i * i % 9973 * 40503) >> 24);
    return p;
}

#endif
