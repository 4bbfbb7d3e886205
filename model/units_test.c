/*
 * units_test.c - goal: every unit of a model is one part of one layer, the embedding or the head,
 * and texts say so; whole layers have no letters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/units.h"

enum { LAYERS = 8 };

static void test_kinds(void **state)
{
    (void)state;
    int n = units_count(LAYERS);
    assert_int_equal(n, 18);
    assert_int_equal(units_kind(0, LAYERS), UNIT_EMBEDDING);
    assert_int_equal(units_kind(n - 1, LAYERS), UNIT_HEAD);
    for (int layer = 0; layer < LAYERS; layer++) {
        assert_int_equal(units_kind(1 + 2 * layer, LAYERS), UNIT_ATTENTION);
        assert_int_equal(units_layer(1 + 2 * layer), layer);
        assert_int_equal(units_kind(2 + 2 * layer, LAYERS), UNIT_FEED_FORWARD);
        assert_int_equal(units_layer(2 + 2 * layer), layer);
    }
    assert_int_equal(units_count(CONFIG_LAYERS_MAX), UNITS_MAX);
}

static void expect_layers(enum unit_kind kind, int first_unit, int last_unit, int first, int n)
{
    struct unit_layers layers = units_layers(kind, first_unit, last_unit, LAYERS);
    assert_int_equal(layers.n, n);
    assert_int_equal(layers.first, first);
}

static void test_layers_of_units(void **state)
{
    (void)state;
    expect_layers(UNIT_ATTENTION, 0, 17, 0, 8);
    expect_layers(UNIT_FEED_FORWARD, 0, 17, 0, 8);
    expect_layers(UNIT_ATTENTION, 0, 7, 0, 4); /* embed,0-3a */
    expect_layers(UNIT_FEED_FORWARD, 0, 7, 0, 3);
    expect_layers(UNIT_ATTENTION, 8, 17, 4, 4); /* 3f-7,head */
    expect_layers(UNIT_FEED_FORWARD, 8, 17, 3, 5);
    expect_layers(UNIT_ATTENTION, 8, 8, 0, 0);
    expect_layers(UNIT_FEED_FORWARD, 7, 7, 0, 0);
    expect_layers(UNIT_ATTENTION, 0, 0, 0, 0);
    expect_layers(UNIT_FEED_FORWARD, 17, 17, 0, 0);
}

static void test_texts(void **state)
{
    (void)state;
    static const struct {
        int first, last;
        const char *text;
    } cases[] = {{0, 8, "embed,0-3"},
                 {9, 16, "4-7"},
                 {9, 10, "4"},
                 {9, 17, "4-7,head"},
                 {0, 17, "embed,0-7,head"},
                 {0, 0, "embed"},
                 {17, 17, "head"},
                 {0, 2, "embed,0"},
                 {15, 17, "7,head"},
                 {0, 7, "embed,0-3a"},
                 {8, 17, "3f-7,head"},
                 {8, 8, "3f"},
                 {7, 7, "3a"},
                 {8, 9, "3f-4a"},
                 {8, 12, "3f-5"},
                 {7, 9, "3-4a"},
                 {0, 1, "embed,0a"},
                 {16, 17, "7f,head"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[UNITS_TEXT_BYTES];
        units_format(text, cases[i].first, cases[i].last, LAYERS);
        assert_string_equal(text, cases[i].text);
    }
    char longest[UNITS_TEXT_BYTES];
    units_format(longest, 0, UNITS_MAX - 1, CONFIG_LAYERS_MAX);
    assert_string_equal(longest, "embed,0-1023,head");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_layers_of_units),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
