/*
 * exif_test.c - goal: the orientation is found in both byte orders, and damaged EXIF reads as
 * upright. Turning is tested with whole files in picture_file_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "model/exif.h"

/* One IFD with `n` entries of which the last is the orientation. */
static void test_exif_of_strangers(void **state)
{
    (void)state;
    uint8_t little[] = {'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
    uint8_t big[] = {'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0};
    assert_int_equal(exif_orientation(little, sizeof(little)), 6);
    assert_int_equal(exif_orientation(big, sizeof(big)), 6);
    for (size_t n = 0; n < 20; n++) {
        assert_int_equal(exif_orientation(little, n), 1);
        assert_int_equal(exif_orientation(big, n), 1);
    }
    little[18] = 9; /* no orientation */
    assert_int_equal(exif_orientation(little, sizeof(little)), 1);
    little[18] = 6;
    little[12] = 4; /* of another type */
    assert_int_equal(exif_orientation(little, sizeof(little)), 1);
    little[12] = 3;
    memset(little + 4, 0xff, 4); /* a directory far outside */
    assert_int_equal(exif_orientation(little, sizeof(little)), 1);
    little[4] = 21;
    memset(little + 5, 0, 3);
    assert_int_equal(exif_orientation(little, sizeof(little)), 1);
    assert_int_equal(exif_orientation((const uint8_t *)"Exif\0\0", 6), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exif_of_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
