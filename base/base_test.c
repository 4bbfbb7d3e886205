/*
 * base_test.c - goal: error texts say what they were given, conversions round as frameworks do, and Philox
 * gives the known answers that Random123 publishes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/log.h"
#include "base/philox.h"

static void test_error_texts(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(error_set(&err, STATUS_IO, "cannot open '%s'", "a\nb"), STATUS_IO);
    assert_string_equal(err.text, "cannot open 'a?b'");
    assert_int_equal(error_wrap(&err, STATUS_INVALID, "model %d", 7), STATUS_INVALID);
    assert_string_equal(err.text, "model 7: cannot open 'a?b'");
    assert_int_equal(error_set_errno(&err, STATUS_IO, 2, "x"), STATUS_IO);
    assert_string_equal(err.text, "x: no such file or directory");
    assert_int_equal(error_set(NULL, STATUS_FULL, "nobody reads this"), STATUS_FULL);
    assert_string_equal(status_name(STATUS_FULL), "full");
}

/* Names in files need not be UTF-8, but the texts that quote them go into JSON. */
static void test_error_texts_are_utf8(void **state)
{
    (void)state;
    struct error err;
    error_set(&err, STATUS_INVALID, "%s", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_string_equal(err.text, "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    error_set(&err, STATUS_INVALID, "%s", "\xff \xc3 \xc0\xaf \xed\xa0\x80 \xf5\x80\x80\x80 \x80 \xe2\x82");
    assert_string_equal(err.text, "? ? ?? ??? ???? ? ??");
    error_set(&err, STATUS_INVALID, "%.2s", "a\xc3\xa9");
    assert_string_equal(err.text, "a?");
}

static void test_error_text_is_cut_visibly(void **state)
{
    (void)state;
    struct error err;
    char longer[2 * ERROR_TEXT_BYTES];
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    error_set(&err, STATUS_INVALID, "%s", longer);
    assert_int_equal(strlen(err.text), ERROR_TEXT_BYTES - 1);
    assert_string_equal(err.text + ERROR_TEXT_BYTES - 4, "...");
    error_wrap(&err, STATUS_INVALID, "context");
    assert_memory_equal(err.text, "context: xxx", 12);
    assert_string_equal(err.text + ERROR_TEXT_BYTES - 4, "...");
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_from_f32(1.0f), 0x3f80);
    assert_int_equal(bf16_from_f32(0x1.01p0f), 0x3f80); /* a tie: to even, down */
    assert_int_equal(bf16_from_f32(0x1.03p0f), 0x3f82); /* a tie: to even, up */
    assert_int_equal(bf16_from_f32(0x1.010002p0f), 0x3f81);
    assert_int_equal(bf16_from_f32(3.4e38f), 0x7f80); /* rounds to infinity */
    assert_true(isnan(bf16_to_f32(bf16_from_f32(NAN))));
}

static void test_f16_values(void **state)
{
    (void)state;
    assert_true(f16_to_f32(0x3c00) == 1.0f);
    assert_true(f16_to_f32(0xc000) == -2.0f);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(f16_to_f32(0x7bff) == 65504.0f);
    assert_true(isinf(f16_to_f32(0x7c00)));
    assert_true(isnan(f16_to_f32(0x7e00)));
}

/* Known answers: Random123 1.14, tests/kat_vectors, lines "philox4x32 10". */
static void test_philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t out[4];
        philox4x32(out, cases[i].counter, cases[i].key);
        assert_memory_equal(out, cases[i].out, sizeof(out));
    }
}

static void test_log_levels(void **state)
{
    (void)state;
    assert_int_equal(log_parse_level("warn"), LOG_WARN);
    assert_int_equal(log_parse_level("loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_texts),
        cmocka_unit_test(test_error_texts_are_utf8),
        cmocka_unit_test(test_error_text_is_cut_visibly),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_f16_values),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_log_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
