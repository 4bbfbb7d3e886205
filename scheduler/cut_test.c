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

static struct cut_unit units[UNITS_MAX];
static struct cut_stage stages[CUT_STAGES_MAX];
static int n_units;
static struct error err;

static struct model_config shape_7b(int n_layers)
{
    return (struct model_config){.hidden = 4096,
                                 .inter = 11008,
                                 .n_layers = n_layers,
                                 .n_heads = 32,
                                 .n_kv_heads = 32,
                                 .head_dim = 128,
                                 .vocab = 65536};
}

static void use_7b(int n_layers)
{
    struct model_config config = shape_7b(n_layers);
    n_units = cut_units(
        units, &(struct cut_question){.config = &config, .item_bytes = 2, .n_codes = 8192});
    assert_int_equal(n_units, units_count(n_layers));
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
    double layer = units[1].time + units[2].time;
    assert_true(units[n_units - 1].time < 0.2 * layer); /* 8,192 of 65,536 rows of the head */
    for (int i = 3; i < n_units - 1; i++)
        assert_memory_equal(&units[i], &units[i - 2], sizeof(units[i]));
    assert_true(units[1].weight_bytes > 4LL * 4096 * 4096 * 2);
    assert_true(units[2].weight_bytes > 3LL * 4096 * 11008 * 2);
}

static int n_halved(int n_stages)
{
    int n = 0;
    for (int i = 1; i < n_stages; i++)
        n += units_kind(stages[i].first_unit, (n_units - 2) / 2) == UNIT_FEED_FORWARD;
    return n;
}

static void test_every_number_of_stages(void **state)
{
    (void)state;
    use_7b(32);
    for (int n = 1; n <= 64; n++) {
        assert_int_equal(cut_balance(stages, n, units, n_units, NULL, NULL, &err), STATUS_OK);
        check_cut(n);
    }
    use_7b(20);
    assert_int_equal(cut_balance(stages, 43, units, n_units, NULL, NULL, &err), STATUS_INVALID);
    assert_string_equal(err.text, "43 stages, expected 1 to 42 for 42 units");
    assert_int_equal(cut_balance(stages, 0, units, n_units, NULL, NULL, &err), STATUS_INVALID);
}

/* Halves are taken only where they make the slowest stage faster. */
static void test_whole_layers_win_ties(void **state)
{
    (void)state;
    use_7b(32); /* the head is 0.17 of a layer: half a layer would be too much */
    assert_int_equal(cut_balance(stages, 4, units, n_units, NULL, NULL, &err), STATUS_OK);
    assert_int_equal(n_halved(4), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            units_layers(UNIT_ATTENTION, stages[i].first_unit, stages[i].last_unit, 32).n, 8);
    use_7b(5);
    assert_int_equal(cut_balance(stages, 2, units, n_units, NULL, NULL, &err), STATUS_OK);
    assert_int_equal(n_halved(2), 1);
    for (int i = 0; i < n_units; i++) { /* equal units: 12 on 5 stages need 3 on one */
        units[i].time = 1;
        units[i].weight_bytes = i < 6 ? 100 : 1; /* bytes alone would cut in the middle of one */
    }
    assert_int_equal(cut_balance(stages, 5, units, n_units, NULL, NULL, &err), STATUS_OK);
    assert_int_equal(n_halved(5), 0);
    for (int i = 0; i < 5; i++)
        assert_true(stages[i].time <= 3);
    assert_int_equal(cut_balance(stages, 4, units, n_units, NULL, NULL, &err), STATUS_OK);
    assert_int_equal(n_halved(4), 1); /* 3 units each: two boundaries between layers, one inside */
}

/* What a cut is judged by, in this order. */
struct merit {
    double time;
    int n_halved;
    int64_t bytes;
};

struct problem {
    double speeds[6];
    int64_t memory[6];
    int n_stages;
    double time_limit; /* cuts with a slower stage do not count */
};

/* The best of all cuts, by recursion: `so_far` are the stages before `stage`. */
static void try_all(const struct problem *p, int stage, int first, struct merit so_far,
                    struct merit *best)
{
    double time = 0;
    int64_t bytes = 0;
    if (stage == p->n_stages && first == n_units) {
        bool is_better = so_far.time < best->time;
        if (p->time_limit < 1e300) /* the times are all good enough */
            is_better = so_far.n_halved < best->n_halved ||
                        (so_far.n_halved == best->n_halved && so_far.bytes < best->bytes);
        *best = is_better ? so_far : *best;
    }
    for (int last = first; stage < p->n_stages && last < n_units; last++) {
        time += units[last].time / p->speeds[stage];
        bytes += units[last].weight_bytes;
        if (bytes > p->memory[stage] || time > p->time_limit)
            break;
        struct merit next = {.time = time > so_far.time ? time : so_far.time,
                             .n_halved = so_far.n_halved,
                             .bytes = bytes > so_far.bytes ? bytes : so_far.bytes};
        next.n_halved += units_kind(last + 1, (n_units - 2) / 2) == UNIT_FEED_FORWARD;
        try_all(p, stage + 1, last + 1, next, best);
    }
}

static void check_merit(const struct problem *p)
{
    struct merit best = {.time = 1e300, .n_halved = 99},
                 found = {.n_halved = n_halved(p->n_stages)};
    struct problem timed = *p;
    try_all(p, 0, 0, (struct merit){0}, &best);
    timed.time_limit = best.time * (1 + 1e-9);
    best.n_halved = 99;
    try_all(&timed, 0, 0, (struct merit){0}, &best);
    for (int i = 0; i < p->n_stages; i++) {
        assert_true(stages[i].weight_bytes <= p->memory[i]);
        found.time = stages[i].time > found.time ? stages[i].time : found.time;
        found.bytes = stages[i].weight_bytes > found.bytes ? stages[i].weight_bytes : found.bytes;
    }
    assert_true(found.time <= timed.time_limit * (1 + 1e-8));
    assert_int_equal(found.n_halved, best.n_halved);
    assert_int_equal(found.bytes, best.bytes);
}

static void test_best_of_all_cuts(void **state)
{
    (void)state;
    uint64_t random = 5;
    int n_cut = 0, n_with_halves = 0;
    for (int round = 0; round < 400; round++) {
        struct problem p = {.time_limit = 1e300};
        n_units = units_count(1 + (int)(random % 5));
        int variety = 1 + (int)((random >> 12) % 50); /* few different times: many ties */
        for (int i = 0; i < n_units; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            units[i] = (struct cut_unit){(int64_t)(random >> 33) % 100,
                                         1 + (double)((random >> 20) % (unsigned)variety)};
        }
        p.n_stages = 1 + (int)((random >> 30) % 6) % n_units;
        for (int i = 0; i < p.n_stages; i++) {
            p.speeds[i] = 1 + (double)((random >> (i + 8)) % 3);
            p.memory[i] = 120 + (int64_t)((random >> (2 * i + 11)) % 400);
        }
        struct merit best = {.time = 1e300};
        try_all(&p, 0, 0, (struct merit){0}, &best);
        enum status st = cut_balance(stages, p.n_stages, units, n_units, p.speeds, p.memory, &err);
        assert_int_equal(st, best.time < 1e300 ? STATUS_OK : STATUS_NOMEM);
        if (st != STATUS_OK)
            continue;
        check_cut(p.n_stages);
        check_merit(&p);
        n_cut++;
        n_with_halves += n_halved(p.n_stages) > 0;
    }
    print_message("%d cuts, %d of them inside layers\n", n_cut, n_with_halves);
    assert_true(n_with_halves > 50 && n_cut - n_with_halves > 50);
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
        {"0-8,9-17", 2, {0, 19}},
        {"embed,0-17,head", 3, {0, 1, 37}},
        {"embed-8,9-head", 2, {0, 19}},
        {"0-17", 1, {0}},
        {"embed-head", 1, {0}},
        {"0,1-16,17", 3, {0, 3, 35}},
        {"embed,0,1-17,head", 4, {0, 1, 3, 37}},
        {"0-8a,8f-17", 2, {0, 18}},
        {"embed-8a,8f-head", 2, {0, 18}},
        {"0a,0f,1a,1f-17", 4, {0, 2, 3, 4}},
        {"0-7f,8a-17", 2, {0, 17}},
        {"0-0a,0f-0f,1-17a,17f", 4, {0, 2, 3, 36}},
        {"embed,0a-17,head", 3, {0, 1, 37}},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(cut_parse(stages, 64, &n, good[i].text, units, n_units, &err), STATUS_OK);
        assert_int_equal(n, good[i].n);
        check_cut(n);
        for (int k = 0; k < n; k++)
            assert_int_equal(stages[k].first_unit, good[i].first[k]);
    }
}

static void test_wrong_texts(void **state)
{
    (void)state;
    use_7b(18);
    int n;
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "an empty cut"},
        {"0-17,", "a cut ends with a comma"},
        {"0-8", "the cut '0-8' leaves a gap at 9-17,head"},
        {"0-8,10-17", "the cut '0-8,10-17' leaves a gap at 9"},
        {"0-9,9-17", "the cut '0-9,9-17' overlaps at 9"},
        {"1-17", "the cut '1-17' leaves a gap at embed,0"},
        {"embed,1-17", "the cut 'embed,1-17' leaves a gap at 0"},
        {"0-8a,9-17", "the cut '0-8a,9-17' leaves a gap at 8f"},
        {"0-8,9f-17", "the cut '0-8,9f-17' leaves a gap at 9a"},
        {"0-8,8f-17", "the cut '0-8,8f-17' overlaps at 8f"},
        {"0-8a,8-17", "the cut '0-8a,8-17' overlaps at 8a"},
        {"0f-17", "the cut '0f-17' leaves a gap at embed,0a"},
        {"0-17a", "the cut '0-17a' leaves a gap at 17f,head"},
        {"0-10,4-17", "the cut '0-10,4-17' overlaps at 4-10"},
        {"0-17,0", "the cut '0-17,0' overlaps at 0-17"},
        {"17-0", "cannot read the stage at '17-0', expected units or FIRST-LAST out of embed, "
                 "0 to 17, head; 0a and 0f are the attention and the feed-forward half of layer 0"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(cut_parse(stages, 64, &n, bad[i].text, units, n_units, &err),
                         STATUS_INVALID);
        assert_string_equal(err.text, bad[i].error);
    }
    static const char *const unreadable[] = {
        "0-8;9-17", ",0-17", "0--17",  "0-18",       "18a",
        "0-8,9-",   "0-17x", "a",      "embe-head",  "0-17aa",
        "8f-8a",    "0-8 a", "embeda", "0-8A,8F-17", "0-99999999999999999999"};
    for (size_t i = 0; i < sizeof(unreadable) / sizeof(unreadable[0]); i++) {
        assert_int_equal(cut_parse(stages, 64, &n, unreadable[i], units, n_units, &err),
                         STATUS_INVALID);
        assert_non_null(strstr(err.text, "cannot read the stage at"));
    }
    assert_int_equal(cut_parse(stages, 1, &n, "0-8,9-17", units, n_units, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the cut '0-8,9-17' has more than 1 stages");
}

/* What is told of a cut is read as the same cut. */
static void test_round_trip(void **state)
{
    (void)state;
    use_7b(6);
    for (int first = 1; first < n_units - 1; first++)
        for (int second = first + 1; second < n_units; second++) {
            const int starts[] = {0, first, second, n_units};
            char text[3 * UNITS_TEXT_BYTES] = "";
            for (int k = 0; k < 3; k++) {
                char part[UNITS_TEXT_BYTES];
                units_format(part, starts[k], starts[k + 1] - 1, 6);
                /* Layers bring their embedding or head along, and "," separates stages. */
                char *layers = strncmp(part, "embed,", 6) == 0 ? part + 6 : part;
                char *end = strstr(layers, ",head");
                if (end)
                    *end = '\0';
                strcat(strcat(text, k > 0 ? "," : ""), layers);
            }
            int n;
            assert_int_equal(cut_parse(stages, 64, &n, text, units, n_units, &err), STATUS_OK);
            assert_int_equal(n, 3);
            check_cut(3);
            for (int k = 0; k < 3; k++)
                assert_int_equal(stages[k].first_unit, starts[k]);
        }
}

/* 16 layers and a head of 0.66 of a layer: half a layer evens two stages out as long as keys and
 * values are few. */
static void test_long_pictures_weigh_on_attention(void **state)
{
    (void)state;
    struct model_config config = {.hidden = 1024,
                                  .inter = 2752,
                                  .n_layers = 16,
                                  .n_heads = 16,
                                  .n_kv_heads = 16,
                                  .head_dim = 64,
                                  .vocab = 65536};
    struct cut_question question = {
        .config = &config, .item_bytes = 2, .n_codes = 8192, .n_positions = 38, .n_stages = 2};
    int n;
    assert_int_equal(cut_model(stages, &n, &question, &err), STATUS_OK);
    assert_int_equal(stages[1].first_unit, 18); /* "8f-15,head" */
    question.n_positions = 1178;                /* the middle of 768x768 */
    assert_int_equal(cut_model(stages, &n, &question, &err), STATUS_OK);
    assert_int_equal(stages[1].first_unit, 17);
    n_units = cut_units(units, &question);
    assert_true(units[1].time > units[1].weight_bytes + 16.0 * 1178 * 2 * 1024 * 2 - 1);
    assert_int_equal(units[2].time, units[2].weight_bytes);
}

static void test_of_a_model(void **state)
{
    (void)state;
    struct model_config config = shape_7b(18);
    struct cut_question question = {
        .config = &config, .item_bytes = 2, .n_codes = 8192, .n_stages = 3};
    int n;
    n_units = cut_units(units, &question);
    assert_int_equal(cut_model(stages, &n, &question, &err), STATUS_OK);
    assert_int_equal(n, 3);
    check_cut(3);
    question.text = "0-8a,8f-17";
    assert_int_equal(cut_model(stages, &n, &question, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the cut '0-8a,8f-17' has 2 stages, 3 were asked for");
    for (question.n_stages = 1; question.n_stages < 3; question.n_stages++) {
        assert_int_equal(cut_model(stages, &n, &question, &err), STATUS_OK);
        assert_int_equal(n, 2);
        assert_int_equal(stages[1].first_unit, 18);
    }
    question.text = "0-8";
    assert_int_equal(cut_model(stages, &n, &question, &err), STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_every_number_of_stages),
        cmocka_unit_test(test_whole_layers_win_ties),
        cmocka_unit_test(test_best_of_all_cuts),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_wrong_texts),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_long_pictures_weigh_on_attention),
        cmocka_unit_test(test_of_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
