/*
 * Goal: every worker has cores, none has another's while there are enough, and all cores are used.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/cpu_share.h"

static cpu_set_t cores(int first, int n)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < n; i++)
        CPU_SET(first + 2 * i, &set);
    return set;
}

static void test_enough_cores(void **state)
{
    (void)state;
    for (int n_cpus = 1; n_cpus <= 9; n_cpus++) {
        for (int n_workers = 1; n_workers <= n_cpus; n_workers++) {
            cpu_set_t allowed = cores(3, n_cpus);
            cpu_set_t seen;
            CPU_ZERO(&seen);
            for (int i = 0; i < n_workers; i++) {
                cpu_set_t own, both;
                cpu_share(&own, &allowed, i, n_workers);
                assert_true(CPU_COUNT(&own) >= n_cpus / n_workers);
                CPU_AND(&both, &own, &seen);
                assert_int_equal(CPU_COUNT(&both), 0);
                CPU_OR(&seen, &own, &seen);
            }
            assert_true(CPU_EQUAL(&seen, &allowed));
        }
    }
}

static void test_more_workers_than_cores(void **state)
{
    (void)state;
    cpu_set_t allowed = cores(0, 2);
    for (int i = 0; i < 5; i++) {
        cpu_set_t own;
        cpu_share(&own, &allowed, i, 5);
        assert_int_equal(CPU_COUNT(&own), 1);
        assert_true(CPU_ISSET(2 * (i % 2), &own));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enough_cores),
        cmocka_unit_test(test_more_workers_than_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
