/*
 * cpu_list_test.c - lists as taskset writes them, and everything else refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/cpu_list.h"

static struct error err;
static int cpus[CPU_LIST_MAX], n;

static void test_good_lists(void **state)
{
    (void)state;
    assert_int_equal(cpu_list_parse(cpus, &n, "0-2,8,5-5", &err), STATUS_OK);
    const int expected[] = {0, 1, 2, 8, 5};
    assert_int_equal(n, 5);
    assert_memory_equal(cpus, expected, sizeof(expected));
    assert_int_equal(cpu_list_parse(cpus, &n, "1024-2047", &err), STATUS_OK);
    assert_int_equal(n, CPU_LIST_MAX);
    assert_true(cpu_list_n_allowed() >= 1);
}

static void test_bad_lists(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",      ",",     "1,",  ",1",  "a",     "1-",    "-1",
        "3-1",   "1-2-3", "1 2", "0,0", "0-3,2", "99999", "99999999999999999999",
        "0-1024"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (cpu_list_parse(cpus, &n, bad[i], &err) != STATUS_INVALID)
            fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good_lists),
                                       cmocka_unit_test(test_bad_lists)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
