/*
 * plan_test.c - one good plan, and every single way to make it bad; results against their plans;
 * Load.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "proto/plan.h"

static struct error err;
static const struct plan_limits limits = {
    .rows_max = 16, .outputs_max = 8, .vocab = 100, .max_positions = 64};

/* A plan with a guided pair, a plain row, a fork and a release; tests change one thing each. */
struct fixture {
    Mgpt__StepPlan plan;
    Mgpt__Row rows[3], *row_list[3];
    Mgpt__Output outputs[4], *output_lists[3][2];
    Mgpt__Sampling sampling, *sampling_list[1];
    Mgpt__Fork forks[2], *fork_list[2];
    uint32_t tokens[3][4], allowed[2], forbidden[2];
    uint64_t release[1];
};

static void add_output(struct fixture *f, int row, int index, int place, uint32_t offset)
{
    Mgpt__Output *output = f->output_lists[row][index] = &f->outputs[place];
    mgpt__output__init(output);
    output->offset = offset;
    output->set = MGPT__TOKEN_SET__SET_CODES;
    f->rows[row].n_outputs++;
}

static void fixture_init(struct fixture *f)
{
    static const Mgpt__RowRole roles[] = {MGPT__ROW_ROLE__ROW_CONDITIONAL,
                                          MGPT__ROW_ROLE__ROW_UNCONDITIONAL,
                                          MGPT__ROW_ROLE__ROW_PLAIN};
    memset(f, 0, sizeof(*f));
    mgpt__step_plan__init(&f->plan);
    f->plan.epoch = f->plan.number = 1;
    f->plan.rows = f->row_list;
    f->plan.n_rows = 3;
    for (int r = 0; r < 3; r++) {
        mgpt__row__init(f->row_list[r] = &f->rows[r]);
        f->rows[r].sequence = (uint64_t)r + 1;
        f->rows[r].tokens = f->tokens[r];
        f->rows[r].n_tokens = 2;
        f->rows[r].role = roles[r];
        f->rows[r].outputs = f->output_lists[r];
    }
    add_output(f, 0, 0, 0, 1);
    add_output(f, 1, 0, 1, 1);
    add_output(f, 2, 0, 2, 0);
    add_output(f, 2, 1, 3, 1);
    f->outputs[2].kind = MGPT__OUTPUT_KIND__OUTPUT_LOGITS;
    f->outputs[3].set = MGPT__TOKEN_SET__SET_LISTED;
    f->allowed[0] = 5;
    f->allowed[1] = 9;
    f->outputs[3].allowed = f->allowed;
    f->outputs[3].n_allowed = 2;
    mgpt__sampling__init(f->sampling_list[0] = &f->sampling);
    f->sampling.temperature = 1;
    f->plan.sampling = f->sampling_list;
    f->plan.n_sampling = 1;
    for (int i = 0; i < 2; i++) {
        mgpt__fork__init(f->fork_list[i] = &f->forks[i]);
        f->forks[i].from = 8;
        f->forks[i].to = (uint64_t)i + 1;
        f->forks[i].n_positions = 64;
    }
    f->plan.forks = f->fork_list;
    f->plan.n_forks = 2;
    f->release[0] = 7;
    f->plan.release = f->release;
    f->plan.n_release = 1;
}

static void expect_good(struct fixture *f)
{
    if (plan_check(&f->plan, &limits, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void expect_bad(struct fixture *f, const char *text)
{
    err.text[0] = '\0';
    assert_int_equal(plan_check(&f->plan, &limits, &err), STATUS_INVALID);
    if (!strstr(err.text, text))
        fail_msg("'%s' has no '%s'", err.text, text);
    fixture_init(f);
}

static void test_good_plans(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    expect_good(&f);
    assert_int_equal(plan_n_tokens(&f.plan), 6);
    assert_int_equal(plan_n_outputs(&f.plan), 3);
    f.rows[2].start = 62; /* the last position */
    expect_good(&f);
    f.plan.n_rows = f.plan.n_forks = f.plan.n_release = f.plan.n_sampling = 0;
    expect_good(&f);
    fixture_init(&f);
    f.outputs[3].set = MGPT__TOKEN_SET__SET_TEXT;
    f.outputs[3].n_allowed = 0;
    f.outputs[3].forbidden = f.allowed;
    f.outputs[3].n_forbidden = 2;
    expect_good(&f);
    f.rows[0].n_tokens = 4; /* the rows of a pair may differ in length */
    f.rows[1].n_tokens = 2;
    expect_good(&f);
}

static void test_bad_counts_and_ids(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.plan.epoch = 0, expect_bad(&f, "epoch 0");
    f.plan.number = 0, expect_bad(&f, "number 0");
    f.plan.n_rows = PLAN_ROWS_MAX + 1, expect_bad(&f, "4097 rows, limit 4096");
    f.plan.n_forks = PLAN_FORKS_MAX + 1, expect_bad(&f, "forks, limit");
    f.plan.n_release = PLAN_RELEASES_MAX + 1, expect_bad(&f, "releases, limit");
    f.plan.n_sampling = PLAN_SAMPLINGS_MAX + 1, expect_bad(&f, "sampling parameters, limit");
    f.release[0] = 0, expect_bad(&f, "release 0 of sequence 0");
    f.forks[1].from = 0, expect_bad(&f, "fork 1");
    f.forks[1].to = 0, expect_bad(&f, "fork 1");
    f.forks[1].to = f.forks[1].from, expect_bad(&f, "two different ids");
    f.forks[1].to = 1, expect_bad(&f, "forks 0 and 1 both make sequence 1");
    f.forks[1].n_positions = 0, expect_bad(&f, "fork 1 of 0 positions");
    f.forks[1].n_positions = 65, expect_bad(&f, "fork 1 of 65 positions, expected 1 to 64");
}

static void test_bad_sampling(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.sampling.temperature = -0.5f, expect_bad(&f, "temperature -0.5");
    f.sampling.temperature = NAN, expect_bad(&f, "temperature");
    f.sampling.temperature = INFINITY, expect_bad(&f, "temperature");
    f.sampling.guidance = NAN, expect_bad(&f, "guidance");
}

static void test_bad_rows(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.rows[2].sequence = 0, expect_bad(&f, "row 2: sequence 0");
    f.rows[2].sequence = 1, expect_bad(&f, "row 2: sequence 1 occurs in row 0 too");
    f.rows[2].n_tokens = 0, expect_bad(&f, "row 2: 0 tokens");
    f.rows[2].n_tokens = 17, expect_bad(&f, "row 2: 17 tokens, expected 1 to 16");
    f.rows[2].start = 63, expect_bad(&f, "row 2: positions 63 to 64, the model has 64");
    f.rows[2].start = UINT32_MAX, expect_bad(&f, "row 2: positions");
    f.tokens[2][1] = 100, expect_bad(&f, "row 2: token 1 is id 100, expected below 100");
    f.rows[2].sampling = 1, expect_bad(&f, "row 2: sampling 1, the plan has 1");
    f.rows[2].role = 3, expect_bad(&f, "row 2: unknown role 3");
    f.rows[2].role = MGPT__ROW_ROLE__ROW_CONDITIONAL, expect_bad(&f, "row 2: conditional without");
    f.rows[2].role = MGPT__ROW_ROLE__ROW_UNCONDITIONAL,
    expect_bad(&f, "row 2: unconditional without");
    f.rows[1].role = MGPT__ROW_ROLE__ROW_PLAIN,
    expect_bad(&f, "row 1: expected the unconditional twin");
    f.rows[1].role = MGPT__ROW_ROLE__ROW_CONDITIONAL,
    expect_bad(&f, "row 1: expected the unconditional twin");
    f.rows[1].n_outputs = 0, expect_bad(&f, "row 1: 0 outputs, its conditional twin has 1");
}

static void test_bad_outputs(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    f.outputs[3].offset = 2, expect_bad(&f, "row 2: output 1: offset 2 in a row of 2 tokens");
    f.outputs[2].offset = 1, f.outputs[3].offset = 0, expect_bad(&f, "output 1: offset 0 after 1");
    f.outputs[2].kind = 2, expect_bad(&f, "unknown kind 2");
    f.outputs[0].kind = MGPT__OUTPUT_KIND__OUTPUT_LOGITS, expect_bad(&f, "plain rows only");
    f.outputs[3].set = 3, expect_bad(&f, "unknown set 3");
    f.outputs[3].n_allowed = 0, expect_bad(&f, "0 allowed ids with set 2");
    f.outputs[3].set = MGPT__TOKEN_SET__SET_CODES, expect_bad(&f, "2 allowed ids with set 1");
    f.allowed[1] = 100, expect_bad(&f, "allowed id 100, expected below 100");
    f.allowed[1] = 5, expect_bad(&f, "allowed ids 5, 5 do not ascend");
    f.outputs[3].forbidden = f.forbidden, f.outputs[3].n_forbidden = 1,
    expect_bad(&f, "1 forbidden ids with set 2");
}

/* Sums over rows: each row is fine alone. */
static void test_bad_sums(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct plan_limits small = limits;
    small.rows_max = 5;
    assert_int_equal(plan_check(&f.plan, &small, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "6 tokens, limit 5"));
    small = limits;
    small.outputs_max = 3;
    assert_int_equal(plan_check(&f.plan, &small, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "4 outputs, limit 3"));
    small = limits;
    small.vocab = PLAN_LOGITS_BYTES_MAX / 4 + 1;
    assert_int_equal(plan_check(&f.plan, &small, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "1 rows of logits, limit 0"));
}

/* ---- results ---- */

struct answer {
    Mgpt__StepResult result;
    Mgpt__DrawnToken drawn[2], *drawn_list[2];
    Mgpt__LogitsRow logits, *logits_list[1];
    Mgpt__RowError error, *error_list[1];
    float values[100];
};

static void answer_init(struct answer *a)
{
    memset(a, 0, sizeof(*a));
    mgpt__step_result__init(&a->result);
    a->result.epoch = a->result.number = 1;
    for (int i = 0; i < 2; i++)
        mgpt__drawn_token__init(a->drawn_list[i] = &a->drawn[i]);
    a->drawn[1].row = 2;
    a->drawn[1].output = 1;
    a->drawn[1].token = 9;
    mgpt__logits_row__init(a->logits_list[0] = &a->logits);
    a->logits.row = 2;
    a->logits.logits = (ProtobufCBinaryData){sizeof(a->values), (uint8_t *)a->values};
    mgpt__row_error__init(a->error_list[0] = &a->error);
    a->error.row = 2;
    a->error.sequence = 3;
    a->error.status = STATUS_INVALID;
    a->result.drawn = a->drawn_list;
    a->result.n_drawn = 2;
    a->result.logits = a->logits_list;
    a->result.n_logits = 1;
    a->result.errors = a->error_list;
}

static enum status check_answer(const struct answer *a, bool is_last)
{
    struct fixture f;
    fixture_init(&f);
    return plan_check_result(&a->result, &f.plan, is_last, 100, &err);
}

static void test_results(void **state)
{
    (void)state;
    struct answer a;
    answer_init(&a);
    assert_int_equal(check_answer(&a, true), STATUS_OK);
    assert_int_equal(check_answer(&a, false), STATUS_INVALID); /* only the last stage draws */
    a.result.number = 2, assert_int_equal(check_answer(&a, true), STATUS_INVALID), answer_init(&a);
    a.result.epoch = 2, assert_int_equal(check_answer(&a, true), STATUS_INVALID), answer_init(&a);
    a.result.status = 99, assert_int_equal(check_answer(&a, true), STATUS_INVALID), answer_init(&a);
    a.result.n_drawn = 1, assert_int_equal(check_answer(&a, true), STATUS_INVALID), answer_init(&a);
    a.drawn[1].output = 0, assert_int_equal(check_answer(&a, true), STATUS_INVALID),
    answer_init(&a);
    a.drawn[1].token = 100, assert_int_equal(check_answer(&a, true), STATUS_INVALID),
    answer_init(&a);
    a.logits.logits.len = 396, assert_int_equal(check_answer(&a, true), STATUS_INVALID),
    answer_init(&a);
    a.result.status = STATUS_LOST, assert_int_equal(check_answer(&a, true), STATUS_INVALID);
    a.result.n_drawn = a.result.n_logits = 0;
    assert_int_equal(check_answer(&a, true), STATUS_OK);
    a.result.status = STATUS_OK;
    assert_int_equal(check_answer(&a, false), STATUS_OK);
}

static void test_results_with_errors(void **state)
{
    (void)state;
    struct answer a;
    answer_init(&a);
    a.result.n_errors = 1;
    a.result.n_logits = 0; /* output 0 of row 2 has the error instead */
    assert_int_equal(check_answer(&a, true), STATUS_OK);
    a.error.output = 2, assert_int_equal(check_answer(&a, true), STATUS_INVALID),
    a.error.output = 0;
    a.error.sequence = 4, assert_int_equal(check_answer(&a, true), STATUS_INVALID),
    a.error.sequence = 3;
    a.error.status = 0, assert_int_equal(check_answer(&a, true), STATUS_INVALID),
    a.error.status = 1;
    a.error.row = 3, assert_int_equal(check_answer(&a, true), STATUS_INVALID), a.error.row = 2;
    a.result.n_drawn = 1; /* the whole row */
    a.error.output = PLAN_WHOLE_ROW;
    assert_int_equal(check_answer(&a, true), STATUS_OK);
    a.result.n_errors = PLAN_ROW_ERRORS_MAX + 1;
    assert_int_equal(check_answer(&a, true), STATUS_INVALID);
}

/* ---- Load ---- */

static void load_init(Mgpt__Load *load)
{
    mgpt__load__init(load);
    load->epoch = load->first_number = 1;
    load->stage_index = 1;
    load->n_stages = 3;
    load->first_unit = 2;
    load->last_unit = 4;
    load->compute = MGPT__COMPUTE__COMPUTE_BF16;
    load->kv_blocks = 10;
    load->rows_max = 16;
    load->sequences_max = 4;
    load->link_bind = "ipc://x";
}

#define EXPECT_BAD_LOAD(change)                                                                    \
    do {                                                                                           \
        load_init(&load);                                                                          \
        change;                                                                                    \
        assert_int_equal(plan_check_load(&load, 6, &err), STATUS_INVALID);                         \
    } while (0)

static void test_load(void **state)
{
    (void)state;
    Mgpt__Load load;
    load_init(&load);
    assert_int_equal(plan_check_load(&load, 6, &err), STATUS_OK);
    EXPECT_BAD_LOAD(load.epoch = 0);
    EXPECT_BAD_LOAD(load.first_number = 0);
    EXPECT_BAD_LOAD(load.n_stages = 7);
    EXPECT_BAD_LOAD(load.stage_index = 3);
    EXPECT_BAD_LOAD(load.stage_index = 2);
    EXPECT_BAD_LOAD(load.stage_index = 0);
    EXPECT_BAD_LOAD(load.first_unit = 5);
    EXPECT_BAD_LOAD(load.first_unit = 0);
    EXPECT_BAD_LOAD(load.last_unit = 5);
    EXPECT_BAD_LOAD(load.last_unit = 6);
    EXPECT_BAD_LOAD(load.compute = MGPT__COMPUTE__COMPUTE_UNSET);
    EXPECT_BAD_LOAD(load.compute = -1);
    EXPECT_BAD_LOAD(load.kv_blocks = 0);
    EXPECT_BAD_LOAD(load.kv_blocks = PLAN_KV_BLOCKS_MAX + 1);
    EXPECT_BAD_LOAD(load.rows_max = 0);
    EXPECT_BAD_LOAD(load.rows_max = PLAN_TOKENS_MAX + 1);
    EXPECT_BAD_LOAD(load.sequences_max = 0);
    EXPECT_BAD_LOAD(load.outputs_max = PLAN_OUTPUTS_MAX + 1);
    EXPECT_BAD_LOAD(load.link_bind = "");
    load_init(&load);
    load.n_stages = 1, load.stage_index = load.first_unit = 0, load.last_unit = 5,
    load.link_bind = "";
    assert_int_equal(plan_check_load(&load, 6, &err), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_plans),   cmocka_unit_test(test_bad_counts_and_ids),
        cmocka_unit_test(test_bad_sampling), cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_bad_outputs),  cmocka_unit_test(test_bad_sums),
        cmocka_unit_test(test_results),      cmocka_unit_test(test_results_with_errors),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
