/*
 * cut_test.c - goal: cuts are contiguous and complete, even in time, keep to the memory, and texts
 * are read and refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/config.h"
#include "scheduler/cut.h"

static struct cut_unit units[CUT_UNITS_MAX];
static struct cut_stage stages[CUT_STAGES_MAX];
static int n_units;
static struct error err;

static void use_7b(int n_layers)
{
    struct model_config config = {.hidden = 4096,
                                  .inter = 11008,
                                  .n_layers = n_layers,
                                  .n_heads = 32,
                                  .n_kv_heads = 32,
                                  .head_dim = 128,
                                  .vocab = 65536};
    assert_int_equal(cut_units(units, CUT_UNITS_MAX, &n_units, &config, 2, 8192, &err), STATUS_OK);
    assert_int_equal(n_units, n_layers + 2);
}

static void check_cut(int n_stages)
{
    assert_int_equal(stages[0].first_unit, 0);
    assert_int_equal(stages[n_stages - 1].last_unit, n_units - 1);
    for (int i = 0; i < n_stages; i++) {
        assert_true(stages[i].last_unit >= stages[i].first_unit);
        if (i > 0)
            assert_int_equal(stages[i].first_unit, stages[i - 1].last_unit + 1);
        int64_t bytes = 0;
        for (int u = stages[i].first_unit; u <= stages[i].last_unit; u++)
            bytes += units[u].weight_bytes;
        assert_int_equal(bytes, stages[i].weight_bytes);
    }
}

static void test_units(void **state)
{
    (void)state;
    use_7b(32);
    int64_t bytes = 0;
    for (int i = 0; i < n_units; i++)
        bytes += units[i].weight_bytes;
    assert_true(bytes > 13900000000 && bytes < 14100000000); /* 7B in bf16 */
    assert_true(units[n_units - 1].time <
                0.2 * units[1].time); /* 8,192 of 65,536 rows of the head */
    struct model_config config = {.n_layers = 1025};
    assert_int_equal(cut_units(units, CUT_UNITS_MAX, &n_units, &config, 2, 1, &err),
                     STATUS_UNSUPPORTED);
}

static void test_every_number_of_stages(void **state)
{
    (void)state;
    use_7b(32);
    for (int n = 1; n <= 34; n++) {
        assert_int_equal(cut_balance(stages, n, units, n_units, NULL, NULL, &err), STATUS_OK);
        check_cut(n);
    }
    assert_int_equal(cut_balance(stages, 35, units, n_units, NULL, NULL, &err), STATUS_INVALID);
    assert_string_equal(err.text, "35 stages, expected 1 to 34 for 34 units");
    assert_int_equal(cut_balance(stages, 0, units, n_units, NULL, NULL, &err), STATUS_INVALID);
    assert_int_equal(cut_balance(stages, 4, units, n_units, NULL, NULL, &err), STATUS_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal((stages[i].last_unit < 33 ? stages[i].last_unit : 32) -
                             (stages[i].first_unit > 0 ? stages[i].first_unit : 1) + 1,
                         8);
}

/* All cuts of few units, by recursion. */
static double best_time(const double *speeds, const int64_t *memory, int n_stages, int stage,
                        int first)
{
    double best = 1e300, time = 0;
    int64_t bytes = 0;
    if (stage == n_stages)
        return first == n_units ? 0 : 1e300;
    for (int last = first; last < n_units; last++) {
        time += units[last].time / speeds[stage];
        bytes += units[last].weight_bytes;
        if (bytes > memory[stage])
            break;
        double rest = best_time(speeds, memory, n_stages, stage + 1, last + 1);
        double largest = rest > time ? rest : time;
        best = largest < best ? largest : best;
    }
    return best;
}

static void test_best_of_all_cuts(void **state)
{
    (void)state;
    uint64_t random = 5;
    for (int round = 0; round < 300; round++) {
        double speeds[6];
        int64_t memory[6];
        n_units = 3 + (int)(random % 8);
        for (int i = 0; i < n_units; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            units[i] =
                (struct cut_unit){(int64_t)(random >> 33) % 100, (double)((random >> 20) % 50)};
        }
        int n_stages = 1 + (int)((random >> 30) % 5) % n_units;
        for (int i = 0; i < n_stages; i++) {
            speeds[i] = 1 + (double)((random >> (i + 8)) % 3);
            memory[i] = 120 + (int64_t)((random >> (2 * i + 11)) % 400);
        }
        double best = best_time(speeds, memory, n_stages, 0, 0);
        enum status st = cut_balance(stages, n_stages, units, n_units, speeds, memory, &err);
        assert_int_equal(st, best < 1e300 ? STATUS_OK : STATUS_NOMEM);
        if (st != STATUS_OK)
            continue;
        check_cut(n_stages);
        double largest = 0;
        for (int i = 0; i < n_stages; i++) {
            assert_true(stages[i].weight_bytes <= memory[i]);
            largest = stages[i].time > largest ? stages[i].time : largest;
        }
        assert_true(largest <= best * (1 + 1e-8) + 1e-9);
    }
}

static void test_measured_speeds(void **state)
{
    (void)state;
    use_7b(32);
    double speeds[2];
    assert_int_equal(cut_balance(stages, 2, units, n_units, NULL, NULL, &err), STATUS_OK);
    int64_t measured[2] = {3000000, 1000000}; /* the second device is three times as fast */
    cut_measured_speeds(speeds, stages, measured, 2, units);
    assert_int_equal(cut_balance(stages, 2, units, n_units, speeds, NULL, &err), STATUS_OK);
    check_cut(2);
    assert_int_equal(stages[0].last_unit, 8);
    measured[0] = 0; /* not measured: an average one */
    cut_measured_speeds(speeds, stages, measured, 2, units);
    assert_true(speeds[0] == 1 && speeds[1] == 1);
    /* A stage of the embedding alone has no time to speak of. */
    assert_int_equal(cut_parse(stages, 2, &(int){0}, "embed,0-31", units, n_units, &err),
                     STATUS_OK);
    measured[0] = 900000;
    cut_measured_speeds(speeds, stages, measured, 2, units);
    assert_true(speeds[0] == 1);
}

static void test_by_hand(void **state)
{
    (void)state;
    use_7b(18);
    int n;
    static const struct {
        const char *text;
        int n, first[4];
    } good[] = {
        {"0-8,9-17", 2, {0, 10}},
        {"embed,0-17,head", 3, {0, 1, 19}},
        {"embed-8,9-head", 2, {0, 10}},
        {"0-17", 1, {0}},
        {"embed-head", 1, {0}},
        {"0,1-16,17", 3, {0, 2, 18}},
        {"embed,0,1-17,head", 4, {0, 1, 2, 19}},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(cut_parse(stages, 64, &n, good[i].text, units, n_units, &err), STATUS_OK);
        assert_int_equal(n, good[i].n);
        check_cut(n);
        for (int k = 0; k < n; k++)
            assert_int_equal(stages[k].first_unit, good[i].first[k]);
    }
    static const char *bad[] = {"",
                                "0-8",
                                "0-8,10-17",
                                "0-9,9-17",
                                "1-17",
                                "0-8;9-17",
                                "0-17,",
                                ",0-17",
                                "0--17",
                                "17-0",
                                "0-18",
                                "head,0-17",
                                "0-8,9-",
                                "embed,1-17",
                                "0-17x",
                                "embe-head",
                                "0-99999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(cut_parse(stages, 64, &n, bad[i], units, n_units, &err), STATUS_INVALID);
    assert_int_equal(cut_parse(stages, 1, &n, "0-8,9-17", units, n_units, &err), STATUS_INVALID);
    assert_int_equal(cut_parse(stages, 64, &n, "0-8,10-17", units, n_units, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the cut '0-8,10-17' leaves a gap at 9");
    assert_int_equal(cut_parse(stages, 64, &n, "0-9,9-17", units, n_units, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the cut '0-9,9-17' overlaps at 10");
}

static void test_texts(void **state)
{
    (void)state;
    char text[CUT_TEXT_BYTES];
    static const struct {
        int first, last;
        const char *text;
    } cases[] = {{0, 4, "embed,0-3"},      {5, 8, "4-7"},   {5, 5, "4"},    {5, 9, "4-7,head"},
                 {0, 9, "embed,0-7,head"}, {0, 0, "embed"}, {9, 9, "head"}, {0, 1, "embed,0"},
                 {8, 9, "7,head"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cut_format(text, cases[i].first, cases[i].last, 8);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_every_number_of_stages),
        cmocka_unit_test(test_best_of_all_cuts),
        cmocka_unit_test(test_measured_speeds),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
