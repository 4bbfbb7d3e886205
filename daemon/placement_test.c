/*
 * Goal: requests spread over pipelines by what these still have to do; one that has measured
 * nothing yet does not get all of them, one that does not stand gets none while another does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/placement.h"

enum { READY = 1, LOST = 0, UNKNOWN = -1 };

static void test_the_one_that_is_done_first(void **state)
{
    (void)state;
    struct placement_load loads[] = {{READY, 700, 1}, {READY, 500, 9}, {READY, 600, 0}};
    assert_int_equal(placement_choose(loads, 3), 1);
    assert_int_equal(placement_choose(loads, 1), 0);
}

static void test_equal_ones(void **state)
{
    (void)state;
    struct placement_load loads[] = {{READY, 0, 2}, {READY, 0, 1}, {READY, 0, 1}};
    assert_int_equal(placement_choose(loads, 3), 1);
}

/* As after one picture: the first pipeline knows what a step takes, the second one does not. */
static void test_a_burst_while_one_has_measured_nothing(void **state)
{
    (void)state;
    struct placement_load loads[] = {{READY, 0, 0}, {READY, UNKNOWN, 0}};
    for (int i = 0; i < 24; i++) {
        struct placement_load *chosen = &loads[placement_choose(loads, 2)];
        chosen->n_requests++;
        chosen->backlog_ns += chosen->backlog_ns == UNKNOWN ? 0 : 1000;
    }
    assert_int_equal(loads[0].n_requests, 12);
    assert_int_equal(loads[1].n_requests, 12);
}

static void test_those_that_do_not_stand_come_last(void **state)
{
    (void)state;
    struct placement_load loads[] = {{LOST, 0, 0}, {READY, 900, 9}, {READY, 800, 8}};
    assert_int_equal(placement_choose(loads, 3), 2);
    loads[0].backlog_ns = UNKNOWN; /* of no account */
    assert_int_equal(placement_choose(loads, 3), 2);
    loads[1].is_ready = loads[2].is_ready = LOST;
    assert_int_equal(placement_choose(loads, 3), 0);
    loads[0].n_requests = 10;
    assert_int_equal(placement_choose(loads, 3), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_one_that_is_done_first),
        cmocka_unit_test(test_equal_ones),
        cmocka_unit_test(test_a_burst_while_one_has_measured_nothing),
        cmocka_unit_test(test_those_that_do_not_stand_come_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
