/*
 * crop_test.c - goal: the golden crops pixel by pixel, and pictures of any shape.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/crop.h"
#include "model/picture_file.h"
#include "model/test_pictures.h"

static void test_golden_crops(void **state)
{
    (void)state;
    struct sizes sizes;
    sizes_init(&sizes, 128, NULL);
    for (int m = 0; m < N_GOLDEN_MODELS; m++) {
        json_t *root = load_json(golden_path(golden_models[m], "/cases/cases.json"));
        size_t i;
        json_t *one;
        json_array_foreach(json_object_get(root, "images"), i, one)
        {
            char path[TEST_PATH_BYTES];
            struct picture *in, *expected, *crop;
            snprintf(path, sizeof(path), "/cases/%s",
                     json_string_value(json_object_get(one, "file")));
            assert_int_equal(
                picture_read_file(&in, golden_path(golden_models[m], path), NULL, NULL), STATUS_OK);
            snprintf(path, sizeof(path), "/cases/%s",
                     json_string_value(json_object_get(one, "crop")));
            assert_int_equal(
                picture_read_file(&expected, golden_path(golden_models[m], path), NULL, NULL),
                STATUS_OK);
            assert_int_equal(crop_to_sizes(&crop, in, &sizes, NULL), STATUS_OK);
            assert_int_equal(crop->width, expected->width);
            assert_int_equal(crop->height, expected->height);
            struct picture *rgb;
            picture_to_rgb(&rgb, expected, NULL);
            assert_memory_equal(crop->pixels, rgb->pixels, picture_bytes(crop));
            picture_destroy(rgb);
            picture_destroy(crop);
            picture_destroy(expected);
            picture_destroy(in);
        }
        json_decref(root);
    }
    sizes_fini(&sizes);
}

static void test_crops_of_extreme_shapes(void **state)
{
    (void)state;
    static const int shapes[][2] = {{1, 1}, {1, 20000}, {20000, 1}, {32768, 2}, {3, 5000}, {2, 1}};
    static const int targets[] = {32, 512};
    for (size_t t = 0; t < 2; t++) {
        struct sizes sizes;
        sizes_init(&sizes, targets[t], NULL);
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            struct picture *in = pattern(shapes[i][0], shapes[i][1], 4);
            struct picture *crop;
            struct error err = {0};
            if (crop_to_sizes(&crop, in, &sizes, &err) != STATUS_OK)
                fail_msg("%dx%d: %s", shapes[i][0], shapes[i][1], err.text);
            struct picture_size size = sizes_choose(&sizes, in->width, in->height);
            assert_int_equal(crop->width, size.width);
            assert_int_equal(crop->height, size.height);
            assert_int_equal(crop->channels, 3);
            picture_destroy(crop);
            picture_destroy(in);
        }
        sizes_fini(&sizes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_crops),
        cmocka_unit_test(test_crops_of_extreme_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
