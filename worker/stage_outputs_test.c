/*
 * stage_outputs_test.c - what comes out of a plan: guided draws, mixed outputs in order, refusals
 * that change nothing, and numbers that stop being finite, each reported with its layer and
 * position while other rows go on.
 */
#include "worker/stage_test_tools.h"

#include <math.h>

/* ---- draws ---- */

/* A guided best token equals the argmax over codes of u + g (c - u) of the two sequences' own
 * logits. */
static void test_guided_draw(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, (const int[]){3, 0});
    float *c = malloc(VOCAB * sizeof(float)), *u = malloc(VOCAB * sizeof(float));
    probe(&p, 1, b.ids, 0, 40, 40, (const int[]){39}, 1, c);
    probe(&p, 2, b.ids + 20, 0, 20, 20, (const int[]){19}, 1, u);
    int best = -1;
    struct vocabulary *vocabulary;
    assert_int_equal(
        model_vocabulary_load(&vocabulary, MGPT_SOURCE_DIR "/tests/golden/v7b/model", &err),
        STATUS_OK);
    for (int i = 0; i < VOCAB; i++) {
        if (vocabulary_code(vocabulary, i) < 0)
            continue;
        float l = u[i] + 4 * (c[i] - u[i]);
        if (best < 0 || l > u[best] + 4 * (c[best] - u[best]))
            best = i;
    }
    vocabulary_destroy(vocabulary);
    plan_begin(t);
    t->sampling.guidance = 4;
    Mgpt__Row *row = plan_add_row(t, 3, 0, b.ids, 40);
    row->role = MGPT__ROW_ROLE__ROW_CONDITIONAL;
    plan_add_output(t, row, 39, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    row = plan_add_row(t, 4, 0, b.ids + 20, 20);
    row->role = MGPT__ROW_ROLE__ROW_UNCONDITIONAL;
    plan_add_output(t, row, 19, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(plan_check_result(result, &t->plan, true, VOCAB, &err), STATUS_OK);
    assert_int_equal(result->n_drawn, 1);
    assert_int_equal(result->drawn[0]->token, best);
    pipeline_close(&p);
    bits_close(&b);
    free(c);
    free(u);
    free(t);
}

/* Codes, text with forbidden ids, listed ids and whole logits in one plan, answered in its order.
 */
static void test_mixed_outputs(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    uint32_t listed[] = {8805, 8810, 8811};
    bits_open(&b, "v7b", DTYPE_BF16);
    pipeline_open(&p, "v7b", DTYPE_BF16, uncut);
    plan_begin(t);
    Mgpt__Row *row = plan_add_row(t, 1, 0, b.ids, 10);
    Mgpt__Output *text = plan_add_output(t, row, 3, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    text->set = MGPT__TOKEN_SET__SET_TEXT;
    plan_add_output(t, row, 3, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
    plan_add_output(t, row, 5, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    Mgpt__Output *list = plan_add_output(t, row, 6, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    list->set = MGPT__TOKEN_SET__SET_LISTED;
    list->allowed = listed;
    list->n_allowed = 3;
    Mgpt__Output *barred = plan_add_output(t, row, 6, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    barred->set = MGPT__TOKEN_SET__SET_TEXT;
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(plan_check_result(result, &t->plan, true, VOCAB, &err), STATUS_OK);
    assert_int_equal(result->n_drawn, 4);
    assert_int_equal(result->n_logits, 1);
    assert_true(result->drawn[1]->token >= 4 && result->drawn[1]->token <= 8195);
    assert_true(result->drawn[2]->token == 8805 || result->drawn[2]->token == 8810 ||
                result->drawn[2]->token == 8811);
    uint32_t best_text = result->drawn[3]->token;
    assert_true(best_text > 8195 || best_text < 4);
    barred->forbidden = &best_text;
    barred->n_forbidden = 1;
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    assert_int_not_equal(step_result_message(p.result)->drawn[3]->token, best_text);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* ---- failures ---- */

/* A plan that cannot be done changes nothing before `start`, and the next one goes well. */
static void test_refused_plans(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, uncut);
    probe(&p, 1, b.ids, 0, 200, 200, NULL, 0, NULL);
    plan_begin(t);
    plan_add_row(t, 1, 201, b.ids, 1);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "starts at position 201, it holds 200"));
    plan_begin(t);
    plan_add_row(t, 1, 200, b.ids + 200, 100);
    plan_add_row(t, 2, 0, b.ids, 1000);
    plan_add_row(t, 3, 1, b.ids, 1);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_INVALID);
    assert_int_equal(stage_kv_used(p.stages[0]), 4);
    for (uint64_t s = 10; s < 13; s++)
        probe(&p, s, b.ids, 0, 1100, 1100, NULL, 0, NULL);
    plan_begin(t);
    plan_add_row(t, 13, 0, b.ids, 1100);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_NOMEM);
    assert_non_null(strstr(err.text, "needs 18 KV blocks, 6 of 64 are free"));
    for (uint64_t s = 10; s < 14; s++)
        release(&p, s);
    probe(&p, 1, b.ids, 200, PREFIX, 64, places + 3, N_PLACES - 3, b.got + 3 * VOCAB);
    memcpy(b.got, b.whole, 3 * VOCAB * sizeof(float));
    bits_expect_equal(&b);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* NaN in one layer's weights, as broken memory would give it: each row is reported with its layer
 * and position. */
static void test_not_finite_in_a_layer(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, uncut);
    struct stage *stage = p.stages[0];
    float *bad = calloc((size_t)stage->config.inter, sizeof(*bad));
    bad[5] = NAN;
    linear_weight_set(stage->weights->feed_forward[2].down, 7, 1, bad, DTYPE_F32);
    plan_begin(t);
    Mgpt__Row *row = plan_add_row(t, 5, 0, b.ids, 10);
    plan_add_output(t, row, 9, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(plan_check_result(result, &t->plan, true, VOCAB, &err), STATUS_OK);
    assert_int_equal(result->n_drawn, 0);
    assert_int_equal(result->n_errors, 2);
    assert_int_equal(result->errors[0]->output, 0);
    assert_int_equal(result->errors[0]->position, 9);
    assert_int_equal(result->errors[1]->unit, 6);
    assert_int_equal(result->errors[1]->position, 0);
    assert_string_equal(result->errors[1]->text,
                        "sequence 5, position 0: numbers stop being finite in layer 2");
    free(bad);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* One row comes in with NaN: it fails alone, the other row's bits are what they were. */
static void test_not_finite_row_fails_alone(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, (const int[]){2, 0});
    plan_begin(t);
    t->plan.epoch = t->plan.number = 1;
    plan_add_row(t, 1, 0, b.ids, 10);
    Mgpt__Row *row = plan_add_row(t, 2, 0, b.ids, 64);
    plan_add_output(t, row, 0, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
    plan_add_output(t, row, 63, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
    step_result_begin(p.result, 1, 1, 0);
    assert_int_equal(stage_step(p.stages[0], &t->plan, NULL, p.result, &err), STATUS_OK);
    size_t hidden = (size_t)stage_hidden(p.stages[0]);
    memcpy(p.rows, stage_rows_view(p.stages[0]), 74 * hidden * sizeof(float));
    ((float *)(void *)p.rows)[4 * hidden + 3] = INFINITY;
    step_result_begin(p.result, 1, 1, 1);
    assert_int_equal(
        stage_step(p.stages[1], &t->plan, &(struct stage_input){.rows = p.rows}, p.result, &err),
        STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(result->n_errors, 1);
    assert_int_equal(result->errors[0]->sequence, 1);
    assert_int_equal(result->errors[0]->position, 4);
    assert_int_equal(result->errors[0]->unit, -1);
    assert_int_equal(result->n_logits, 2);
    assert_memory_equal(result->logits[0]->logits.data, b.whole, VOCAB * sizeof(float));
    assert_memory_equal(result->logits[1]->logits.data, b.whole + VOCAB, VOCAB * sizeof(float));
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guided_draw),
        cmocka_unit_test(test_mixed_outputs),
        cmocka_unit_test(test_refused_plans),
        cmocka_unit_test(test_not_finite_in_a_layer),
        cmocka_unit_test(test_not_finite_row_fails_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
