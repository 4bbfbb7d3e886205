/*
 * Goal: nothing of a plan is lost or mixed up on its way into the message, memory is used again,
 * and tokens come back in the plan's order whatever the order of the answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/plan_message.h"
#include "proto/plan.h"

static const int32_t prompt[] = {0, 11, 12, 13};
static const int32_t opening[] = {13};
static const int32_t text[] = {21};
static const int32_t sizes[] = {30, 31, 32};
static const int32_t banned[] = {40};

static const struct plan_output pair_draw[] = {
    {.offset = 3, .ordinal = 5, .kind = PLAN_DRAW, .set = PLAN_SET_CODES}};
static const struct plan_output twin_draw[] = {
    {.offset = 0, .ordinal = 5, .kind = PLAN_DRAW, .set = PLAN_SET_CODES}};
static const struct plan_output two_draws[] = {{.offset = 0,
                                                .ordinal = 7,
                                                .kind = PLAN_DRAW,
                                                .set = PLAN_SET_LISTED,
                                                .n_listed = 3,
                                                .listed = sizes},
                                               {.offset = 0,
                                                .ordinal = 8,
                                                .kind = PLAN_DRAW,
                                                .set = PLAN_SET_TEXT,
                                                .n_listed = 1,
                                                .listed = banned}};

static const struct plan_row rows[] = {
    {.request = 1,
     .sequence = 100,
     .start = 0,
     .n_tokens = 4,
     .tokens = prompt,
     .role = PLAN_CONDITIONAL,
     .sampling = 1,
     .n_outputs = 1,
     .outputs = pair_draw},
    {.request = 1,
     .sequence = 101,
     .start = 64,
     .n_tokens = 1,
     .tokens = opening,
     .role = PLAN_UNCONDITIONAL,
     .sampling = 1,
     .n_outputs = 1,
     .outputs = twin_draw},
    {.request = 2,
     .sequence = 102,
     .start = 9,
     .n_tokens = 1,
     .tokens = text,
     .role = PLAN_PLAIN,
     .sampling = 0,
     .n_outputs = 2,
     .outputs = two_draws},
};
static const struct plan_sampling samplings[] = {{.seed = 7,
                                                  .picture_index = 1,
                                                  .temperature = 0.5f,
                                                  .guidance = 1,
                                                  .image_top_k = 200,
                                                  .text_top_k = 10},
                                                 {.seed = UINT64_MAX,
                                                  .picture_index = 2,
                                                  .temperature = 1,
                                                  .guidance = 4,
                                                  .image_top_k = 2000,
                                                  .text_top_k = 5}};
static const uint64_t release[] = {90, 91};
static const struct plan_fork forks[] = {{.from = 100, .to = 103, .n_positions = 128}};

static const struct plan plan = {.epoch = 3,
                                 .number = 17,
                                 .n_release = 2,
                                 .n_forks = 1,
                                 .n_rows = 3,
                                 .n_samplings = 2,
                                 .release = release,
                                 .forks = forks,
                                 .rows = rows,
                                 .samplings = samplings,
                                 .n_tokens = 6,
                                 .n_draws = 3};

static void test_everything_arrives(void **state)
{
    struct plan_message message = {0};
    (void)state;
    assert_int_equal(plan_message_build(&message, &plan, NULL), STATUS_OK);
    const Mgpt__StepPlan *body = &message.body;
    assert_int_equal(body->epoch, 3);
    assert_int_equal(body->number, 17);
    assert_int_equal(body->n_release, 2);
    assert_int_equal(body->release[1], 91);
    assert_int_equal(body->n_forks, 1);
    assert_int_equal(body->forks[0]->to, 103);
    assert_int_equal(body->forks[0]->n_positions, 128);
    assert_int_equal(body->n_rows, 3);
    assert_int_equal(body->rows[0]->role, MGPT__ROW_ROLE__ROW_CONDITIONAL);
    assert_int_equal(body->rows[0]->n_tokens, 4);
    assert_int_equal(body->rows[0]->tokens[3], 13);
    assert_int_equal(body->rows[1]->role, MGPT__ROW_ROLE__ROW_UNCONDITIONAL);
    assert_int_equal(body->rows[1]->start, 64);
    assert_int_equal(body->rows[1]->outputs[0]->offset, 0);
    assert_int_equal(body->rows[2]->role, MGPT__ROW_ROLE__ROW_PLAIN);
    assert_int_equal(body->rows[2]->outputs[0]->set, MGPT__TOKEN_SET__SET_LISTED);
    assert_int_equal(body->rows[2]->outputs[0]->n_allowed, 3);
    assert_int_equal(body->rows[2]->outputs[0]->allowed[2], 32);
    assert_int_equal(body->rows[2]->outputs[1]->set, MGPT__TOKEN_SET__SET_TEXT);
    assert_int_equal(body->rows[2]->outputs[1]->n_forbidden, 1);
    assert_int_equal(body->rows[2]->outputs[1]->n_allowed, 0);
    assert_int_equal(body->rows[2]->outputs[1]->ordinal, 8);
    assert_int_equal(body->n_sampling, 2);
    assert_true(body->sampling[1]->seed == UINT64_MAX);
    assert_int_equal(body->sampling[1]->picture_index, 2);
    assert_true(body->sampling[0]->temperature == 0.5f);
    assert_true(body->sampling[1]->guidance == 4.0f);
    assert_int_equal(body->sampling[1]->image_top_k, 2000);
    assert_int_equal(body->sampling[1]->text_top_k, 5);
    plan_message_fini(&message);
}

static void test_memory_is_used_again(void **state)
{
    struct plan_message message = {0};
    struct plan empty = {.epoch = 3, .number = 18};
    (void)state;
    assert_int_equal(plan_message_build(&message, &plan, NULL), STATUS_OK);
    const char *memory = message.memory;
    assert_int_equal(plan_message_build(&message, &empty, NULL), STATUS_OK);
    assert_int_equal(message.body.n_rows, 0);
    assert_int_equal(message.body.n_release, 0);
    assert_int_equal(plan_message_build(&message, &plan, NULL), STATUS_OK);
    assert_ptr_equal(message.memory, memory);
    plan_message_fini(&message);
    plan_message_fini(&message); /* twice is fine */
}

static Mgpt__DrawnToken drawn(uint32_t row, uint32_t output, uint32_t token)
{
    Mgpt__DrawnToken one = MGPT__DRAWN_TOKEN__INIT;
    one.row = row;
    one.output = output;
    one.token = token;
    return one;
}

static void test_results_come_in_order(void **state)
{
    Mgpt__DrawnToken items[] = {drawn(2, 1, 503), drawn(0, 0, 501), drawn(2, 0, 502)};
    Mgpt__DrawnToken *list[] = {&items[0], &items[1], &items[2]};
    Mgpt__StepResult result = MGPT__STEP_RESULT__INIT;
    int32_t tokens[3];
    struct plan_row_failure failures[3];
    int n_failures;
    (void)state;
    result.n_drawn = 3;
    result.drawn = list;
    plan_message_read_result(&result, &plan, tokens, failures, &n_failures);
    assert_int_equal(tokens[0], 501);
    assert_int_equal(tokens[1], 502);
    assert_int_equal(tokens[2], 503);
    assert_int_equal(n_failures, 0);
}

static void test_failed_rows_are_told(void **state)
{
    Mgpt__DrawnToken items[] = {drawn(2, 0, 502), drawn(2, 1, 503)};
    Mgpt__DrawnToken *list[] = {&items[0], &items[1]};
    Mgpt__RowError of_output = MGPT__ROW_ERROR__INIT, error = MGPT__ROW_ERROR__INIT;
    Mgpt__RowError *errors[] = {&of_output, &error};
    Mgpt__StepResult result = MGPT__STEP_RESULT__INIT;
    int32_t tokens[3];
    struct plan_row_failure failures[3];
    int n_failures;
    (void)state;
    of_output.row = error.row = 0;
    of_output.text = "the logits are not finite";
    error.output = PLAN_WHOLE_ROW;
    error.text = "NaN in layer 3"; /* says more, so it comes first */
    result.n_drawn = 2;
    result.drawn = list;
    result.n_errors = 2;
    result.errors = errors;
    plan_message_read_result(&result, &plan, tokens, failures, &n_failures);
    assert_int_equal(tokens[0], 0);
    assert_int_equal(tokens[2], 503);
    assert_int_equal(n_failures, 2);
    assert_int_equal(failures[0].row, 0);
    assert_string_equal(failures[0].text, "NaN in layer 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_arrives),
        cmocka_unit_test(test_memory_is_used_again),
        cmocka_unit_test(test_results_come_in_order),
        cmocka_unit_test(test_failed_rows_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
