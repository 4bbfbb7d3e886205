/*
 * Goal: a list of stages means what it says, and a wrong one is refused with words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/remote_places.h"

enum { PIPELINES = 2, STAGES = 6 };

/* The places as text, a line of digits for each pipeline. */
static const char *read(const char *text)
{
    static char shown[PIPELINES * (STAGES + 1) + 1];
    struct remote_places places;
    char *at = shown;
    int n = 0;
    assert_int_equal(remote_places_parse(&places, text, PIPELINES, STAGES, NULL), STATUS_OK);
    for (int p = 0; p < PIPELINES; p++) {
        for (int k = 0; k < STAGES; k++) {
            n += places.is_remote[p][k];
            *at++ = places.is_remote[p][k] ? '1' : '0';
        }
        *at++ = ' ';
    }
    at[-1] = 0;
    assert_int_equal(places.n, n);
    return shown;
}

static void test_lists(void **state)
{
    (void)state;
    assert_string_equal(read(NULL), "000000 000000");
    assert_string_equal(read(""), "000000 000000");
    assert_string_equal(read("all"), "111111 111111");
    assert_string_equal(read("5"), "000001 000001");
    assert_string_equal(read("0-2,5"), "111001 111001");
    assert_string_equal(read("1.0-1.3"), "000000 111100");
    assert_string_equal(read("0.1,1,1"), "010000 010000");
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const no_lists[] = {"x",     "1,",      ",1",    "1-",  "-1", "2-1", "1..2",
                                           "1.2-3", "0.1-1.2", "all,1", "1 2", "+1", "1.",  "0x1"};
    static const char *const no_stages[] = {"6", "0-6", "2.0", "99999999999999999999", "70"};
    struct remote_places places;
    struct error err;
    for (size_t i = 0; i < sizeof(no_lists) / sizeof(no_lists[0]); i++) {
        assert_int_equal(remote_places_parse(&places, no_lists[i], PIPELINES, STAGES, &err),
                         STATUS_INVALID);
        if (!strstr(err.text, "expected all, or stages like"))
            fail_msg("'%s': %s", no_lists[i], err.text);
    }
    for (size_t i = 0; i < sizeof(no_stages) / sizeof(no_stages[0]); i++) {
        assert_int_equal(remote_places_parse(&places, no_stages[i], PIPELINES, STAGES, &err),
                         STATUS_INVALID);
        if (!strstr(err.text, "there are 2 pipelines"))
            fail_msg("'%s': %s", no_stages[i], err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
