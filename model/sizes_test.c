/*
 * sizes_test.c - goal: lists are the reference's, the choice is the nearest shape, only
 * WIDTHxHEIGHT is a size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/sizes.h"
#include "model/test_support.h"

static void test_sizes_are_the_references(void **state)
{
    (void)state;
    json_t *root = load_json(golden_path("v7b", "/cases/cases.json"));
    const char *target;
    json_t *list;
    json_object_foreach(json_object_get(root, "crop_size_list"), target, list)
    {
        struct sizes sizes;
        assert_int_equal(sizes_init(&sizes, atoi(target), NULL), STATUS_OK);
        assert_int_equal(sizes.n, json_array_size(list));
        for (int i = 0; i < sizes.n; i++) {
            const json_t *size = json_array_get(list, (size_t)i);
            assert_int_equal(sizes.list[i].width, json_integer_value(json_array_get(size, 0)));
            assert_int_equal(sizes.list[i].height, json_integer_value(json_array_get(size, 1)));
        }
        sizes_fini(&sizes);
    }
    json_decref(root);
    static const int bad[] = {0, -32, 31, 33, SIZES_TARGET_MAX + 32};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sizes sizes;
        assert_int_equal(sizes_init(&sizes, bad[i], NULL), STATUS_INVALID);
    }
    struct sizes largest;
    assert_int_equal(sizes_init(&largest, SIZES_TARGET_MAX, NULL), STATUS_OK);
    sizes_fini(&largest);
}

static void test_choice_of_a_size(void **state)
{
    (void)state;
    struct sizes sizes;
    sizes_init(&sizes, 128, NULL);
    static const int cases[][4] = {
        {1, 1, 128, 128},    {50000, 10, 256, 64}, {10, 50000, 64, 256},
        {640, 480, 128, 96}, {90, 160, 96, 160}, /* 0.9375, better than 64x160 */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct picture_size size = sizes_choose(&sizes, cases[i][0], cases[i][1]);
        assert_int_equal(size.width, cases[i][2]);
        assert_int_equal(size.height, cases[i][3]);
    }
    sizes_fini(&sizes);

    /* Equally far from both: the wider one counts. */
    struct picture_size twins[] = {{64, 128}, {128, 64}};
    struct sizes pair = {.n = 2, .list = twins};
    assert_int_equal(sizes_choose(&pair, 10, 10).width, 128);
}

static void test_sizes_as_text(void **state)
{
    (void)state;
    struct picture_size size;
    assert_int_equal(sizes_parse(&size, "512x768", NULL), STATUS_OK);
    assert_int_equal(size.width, 512);
    assert_int_equal(size.height, 768);
    static const char *const bad[] = {
        "",         "512",     "512x",   "x512",   "512x768x1",
        "512X768",  "-32x32",  "+32x32", " 32x32", "32x32 ",
        "0x32",     "33x32",   "32x33",  "32 x32", "99999999999999999999x32",
        "65568x32", "0x20x32", "1e3x32"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (sizes_parse(&size, bad[i], NULL) != STATUS_INVALID)
            fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_are_the_references),
        cmocka_unit_test(test_choice_of_a_size),
        cmocka_unit_test(test_sizes_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
