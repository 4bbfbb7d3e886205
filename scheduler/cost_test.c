/*
 * cost_test.c - goal: the model finds the times of stages of other shapes than the prior's, and
 * picks the number of micro-batches that a search over all of them finds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/cost.h"
#include "scheduler/scheduler.h"

/* A stage as kernels make it: reading of weights or products, whichever takes longer, and reading
 * of the cache. */
static double real_ns(double rows, double context)
{
    double weights = 12e6, products = rows * 0.35e6;
    return (weights > products ? weights : products) + 400 * context;
}

static uint64_t random_state = 1;
static double noise(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return 1 + 0.03 * ((double)(random_state >> 40) / (1 << 24) - 0.5);
}

/* A step on a machine that is `slower` times as slow. */
static void observe_rows(struct cost_model *cost, int rows, double slower)
{
    cost_observe(cost, 0, rows, 0, (int64_t)(slower * real_ns(rows, 0) * noise()));
}

static void test_learns_times(void **state)
{
    (void)state;
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 2, NULL, NULL), STATUS_OK);
    assert_false(cost_is_measured(cost));
    for (int i = 0; i < 400; i++) {
        int rows = 1 << (i % 8);
        double context = rows * (double)(100 + i);
        cost_observe(cost, 0, rows, (int64_t)context, (int64_t)(real_ns(rows, context) * noise()));
        cost_observe(cost, 1, rows, (int64_t)context,
                     (int64_t)(2 * real_ns(rows, context) * noise()));
    }
    assert_true(cost_is_measured(cost));
    for (int rows = 1; rows <= 128; rows *= 2) {
        double expected = real_ns(rows, rows * 500.0);
        double found = cost_stage_ns(cost, 0, rows, rows * 500.0);
        assert_true(found > 0.85 * expected);
        assert_true(found < 1.2 * expected);
        double sum, worst = cost_step_ns(cost, rows, rows * 500.0, &sum);
        assert_true(worst == cost_stage_ns(cost, 1, rows, rows * 500.0));
        assert_true(sum > worst);
    }
    cost_destroy(cost);
}

/* Half of the model of issue 7 in one thread with AVX2: products bind from 7 rows on. Two stages
 * with 32 rows choose between micro-batches of 16 and of 11 by a few percent of these. */
static void test_the_bend_of_a_cpu(void **state)
{
    static const struct {
        int rows;
        double ms;
    } steps[] = {{2, 15.6},  {4, 20.5},  {6, 20.0},  {8, 24.0},  {10, 27.7}, {12, 31.7},
                 {14, 37.0}, {16, 42.5}, {18, 47.0}, {20, 52.3}, {24, 60.5}};
    enum { N_STEPS = sizeof(steps) / sizeof(steps[0]) };
    struct cost_model *cost;
    (void)state;
    assert_int_equal(cost_create(&cost, 1, NULL, NULL), STATUS_OK);
    for (int i = 0; i < 50 * N_STEPS; i++)
        cost_observe(cost, 0, steps[i % N_STEPS].rows, 0,
                     (int64_t)(steps[i % N_STEPS].ms * 1e6 * noise()));
    for (int i = 3; i < N_STEPS; i++) {
        double found = cost_stage_ns(cost, 0, steps[i].rows, 0) / (steps[i].ms * 1e6);
        assert_true(found > 0.95);
        assert_true(found < 1.05);
    }
    cost_destroy(cost);
}

static void test_first_measurement_sets_the_scale(void **state)
{
    (void)state;
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 1, NULL, NULL), STATUS_OK);
    cost_observe(cost, 0, 2, 20, 50000);
    double t = cost_stage_ns(cost, 0, 2, 20);
    assert_true(t > 45000);
    assert_true(t < 55000);
    cost_destroy(cost);
}

static void test_an_outlier_does_not_stay(void **state)
{
    (void)state;
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 1, NULL, NULL), STATUS_OK);
    for (int i = 0; i < 200; i++)
        cost_observe(cost, 0, 4, 1000, (int64_t)(1e6 * noise()));
    cost_observe(cost, 0, 4, 1000, 500000000);
    assert_true(cost_stage_ns(cost, 0, 4, 1000) < 1.3e6);
    for (int i = 0; i < 50; i++)
        cost_observe(cost, 0, 4, 1000, (int64_t)(1e6 * noise()));
    assert_true(cost_stage_ns(cost, 0, 4, 1000) < 1.05e6);
    cost_observe(cost, 0, 0, 0, 5); /* ignored: no rows, no such stage */
    cost_observe(cost, 7, 1, 1, 5);
    cost_destroy(cost);
}

/* What one number of rows shows of a machine that became slower holds for the others. */
static void test_a_slower_machine(void **state)
{
    (void)state;
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 1, NULL, NULL), STATUS_OK);
    for (int i = 0; i < 400; i++)
        observe_rows(cost, 8 + 8 * (i % 5), 1);
    double before = cost_stage_ns(cost, 0, 12, 0);
    for (int i = 0; i < 100; i++)
        observe_rows(cost, 24, 1.6);
    double after = cost_stage_ns(cost, 0, 12, 0);
    assert_true(after > 1.4 * before);
    assert_true(after < 1.8 * before);
    cost_destroy(cost);
}

static void test_more_rows_never_cost_less(void **state)
{
    (void)state;
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 1, NULL, NULL), STATUS_OK);
    for (int i = 0; i < 300; i++)
        cost_observe(cost, 0, i % 3 ? 8 : 40, 0, i % 3 ? 2000000 : 1500000); /* what cannot be */
    for (int rows = 1; rows < 600; rows++)
        assert_true(cost_stage_ns(cost, 0, rows + 1, 0) >= cost_stage_ns(cost, 0, rows, 0));
    cost_destroy(cost);
}

static int search(const struct cost_model *cost, int least, int most, double rows, double context,
                  double overhead)
{
    int best = least;
    for (int n = least + 1; n <= most; n++) {
        if (cost_round_ns(cost, n, rows, context, overhead) <
            cost_round_ns(cost, best, rows, context, overhead) * (1 - 1e-9))
            best = n;
    }
    return best;
}

/* The machine is slower while larger steps are measured. */
static void test_rows_together_never_cost_more(void **state)
{
    (void)state;
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 1, NULL, NULL), STATUS_OK);
    for (int i = 0; i < 400; i++) {
        int rows = 2 + 2 * (i % 40);
        observe_rows(cost, rows, rows > 60 ? 1.3 : 1);
    }
    for (double rows = 4; rows < 500; rows *= 1.3)
        assert_true(cost_stage_ns(cost, 0, 2 * rows, 0) <= 2.001 * cost_stage_ns(cost, 0, rows, 0));
    assert_int_equal(cost_best_slots(cost, 4, 1, 96, 0, 1e5), 1);
    cost_destroy(cost);
}

/* Of a pipeline that has run large steps alone, small ones are not known: they seem to take as
 * long. That is no reason to leave a stage idle, where they would never be measured. */
static void test_no_stage_is_left_idle(void **state)
{
    (void)state;
    const struct scheduler_stage_prior flat[2] = {{12000000, 1000, 400}, {12000000, 1000, 400}};
    struct cost_model *cost;
    assert_int_equal(cost_create(&cost, 2, flat, NULL), STATUS_OK);
    for (int i = 0; i < 800; i++)
        cost_observe(cost, i % 2, 48 + i % 8, 0, (int64_t)(real_ns(48 + i % 8, 0) * noise()));
    assert_true(cost_round_ns(cost, 1, 48, 0, 1e5) < 0.98 * cost_round_ns(cost, 2, 48, 0, 1e5));
    assert_int_equal(cost_best_slots(cost, 6, 1, 48, 0, 1e5), 2);
    cost_destroy(cost);
    /* One stage takes half as long as the other, and rows cost nothing. */
    const struct scheduler_stage_prior uneven[2] = {{4000000, 1000, 0}, {2000000, 500, 0}};
    assert_int_equal(cost_create(&cost, 2, uneven, NULL), STATUS_OK);
    assert_int_equal(cost_best_slots(cost, 6, 0, 8, 0, 1e5), 1);
    cost_destroy(cost);
}

static void test_number_of_micro_batches(void **state)
{
    (void)state;
    static struct scheduler_stage_prior priors[SCHEDULER_STAGES_MAX];
    for (int n_stages = 1; n_stages <= 64; n_stages *= 2) {
        for (int i = 0; i < n_stages; i++)
            priors[i] = (struct scheduler_stage_prior){3000000, 90000, 50};
        struct cost_model *cost;
        assert_int_equal(cost_create(&cost, n_stages, priors, NULL), STATUS_OK);
        for (double rows = 2; rows < 3000; rows *= 1.7) {
            for (double overhead = 0; overhead < 3e7; overhead = overhead * 3 + 1e5) {
                int most = 2 * n_stages + 2 < rows / 2 ? 2 * n_stages + 2 : (int)(rows / 2);
                int found = cost_best_slots(cost, most, 0, rows, rows * 900, overhead);
                /* All stages are kept busy, even where fewer seem to lose less between steps. */
                int least = n_stages < most ? n_stages : most;
                int best = search(cost, least, most, rows, rows * 900, overhead);
                assert_true(found >= least);
                assert_true(cost_round_ns(cost, found, rows, rows * 900, overhead) <=
                            1.021 * cost_round_ns(cost, best, rows, rows * 900, overhead));
            }
        }
        /* Where products bind, one more micro-batch than stages hides the way back and costs
         * nothing. */
        if (n_stages > 1)
            assert_int_equal(cost_best_slots(cost, 2 * n_stages + 2, 0, 5000, 5000, 3e5),
                             n_stages + 1);
        /* Where reading of weights binds, each further one reads them again; where products bind
         * they cost next to nothing, and gain one stage nothing. */
        if (n_stages == 1) {
            assert_int_equal(cost_best_slots(cost, 4, 0, 8, 800, 3e5), 1);
            assert_int_equal(cost_best_slots(cost, 4, 2, 5000, 5000, 3e5), 1);
        }
        cost_destroy(cost);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_times),
        cmocka_unit_test(test_the_bend_of_a_cpu),
        cmocka_unit_test(test_first_measurement_sets_the_scale),
        cmocka_unit_test(test_an_outlier_does_not_stay),
        cmocka_unit_test(test_a_slower_machine),
        cmocka_unit_test(test_more_rows_never_cost_less),
        cmocka_unit_test(test_rows_together_never_cost_more),
        cmocka_unit_test(test_no_stage_is_left_idle),
        cmocka_unit_test(test_number_of_micro_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
