/*
 * resize_test.c - goal: resizes are Pillow's to the last bit, and any part of one is that part of
 * the whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/resize.h"
#include "model/test_pictures.h"

static int int_at(const json_t *list, size_t i)
{
    return (int)json_integer_value(json_array_get(list, i));
}

static void test_resizes_are_pillows(void **state)
{
    (void)state;
    json_t *root = expected_json();
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(root, "resizes"), i, one)
    {
        const json_t *from = json_object_get(one, "from");
        const json_t *to = json_object_get(one, "to");
        const char *filter = json_string_value(json_object_get(one, "filter"));
        struct picture *in = pattern(int_at(from, 0), int_at(from, 1), int_at(from, 2));
        struct picture *out;
        assert_int_equal(resize(&out, in, int_at(to, 0), int_at(to, 1),
                                strcmp(filter, "box") == 0 ? RESIZE_BOX : RESIZE_BICUBIC, NULL),
                         STATUS_OK);
        if (largest_difference(out, json_object_get(one, "pixels")) != 0)
            fail_msg("resize %zu", i);
        picture_destroy(out);
        picture_destroy(in);
    }
    json_decref(root);
}

/* Any part of a resize is that part of the whole resize. */
static void test_parts_of_a_resize(void **state)
{
    (void)state;
    static const int sizes[][2] = {{20, 15}, {7, 31}, {16, 5}, {16, 12}, {5, 12}, {40, 40}};
    for (int channels = 1; channels <= 4; channels++)
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            struct picture *in = pattern(16, 12, channels);
            struct picture *whole, *part;
            int w = sizes[s][0], h = sizes[s][1];
            assert_int_equal(resize(&whole, in, w, h, RESIZE_BICUBIC, NULL), STATUS_OK);
            struct resize_target t = {.width = w,
                                      .height = h,
                                      .left = w / 3,
                                      .top = h / 4,
                                      .part_width = w / 2,
                                      .part_height = h / 2};
            assert_int_equal(resize_part(&part, in, &t, RESIZE_BICUBIC, NULL), STATUS_OK);
            for (int y = 0; y < part->height; y++)
                assert_memory_equal(part->pixels + (size_t)y * picture_row_bytes(part),
                                    whole->pixels + (size_t)(y + t.top) * picture_row_bytes(whole) +
                                        (size_t)(t.left * channels),
                                    picture_row_bytes(part));
            picture_destroy(part);
            t.part_width = w - t.left + 1;
            assert_int_equal(resize_part(&part, in, &t, RESIZE_BICUBIC, NULL), STATUS_INVALID);
            assert_null(part);
            picture_destroy(whole);
            picture_destroy(in);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resizes_are_pillows),
        cmocka_unit_test(test_parts_of_a_resize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
