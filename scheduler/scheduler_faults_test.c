/*
 * scheduler_faults_test.c - goal: refusals, cancellations, failed plans and rows, resets and
 * resumed requests: each request still ends exactly once, what goes on has the tokens it would have
 * alone, and no block is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "scheduler/fake_world.h"

static void test_failed_plan(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(2, 64);
    options.micro_batches = 2;
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 4; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 64, 64, 4, NULL), STATUS_OK);
    while (world_form(&world))
        ;
    assert_int_equal(world.n_flights, 2);
    uint64_t lost = world.flights[0].number;
    assert_int_equal(scheduler_fail_plan(world.scheduler, 1, lost, "stage 1: out of blocks", NULL),
                     STATUS_OK);
    assert_int_equal(scheduler_fail_plan(world.scheduler, 1, lost, "again", NULL),
                     STATUS_NOT_FOUND);
    free(world.flights[0].answers);
    world.flights[0] = world.flights[--world.n_flights];
    world_events(&world);
    int n_failed = 0;
    for (uint64_t id = 1; id <= 4; id++) {
        n_failed += told(id)->ended;
        if (told(id)->ended)
            assert_string_equal(told(id)->text, "stage 1: out of blocks");
    }
    assert_int_equal(n_failed, 2);
    world_run(&world, 1000);
    assert_int_equal(world.n_ended, 4);
    check_empty();
    world_fini(&world);
}

static void test_failed_row_and_bad_answers(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 64);
    options.micro_batches = 1;
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 64, 64, 4, NULL), STATUS_OK);
    assert_true(world_form(&world));
    assert_int_equal(world.plan->n_rows, 6);
    /* The second request's unconditional row. */
    struct plan_row_failure failure = {.row = 3, .text = "not finite"};
    struct plan_result result = {.number = world.plan->number,
                                 .n_tokens = 3,
                                 .tokens = world.flights[0].answers,
                                 .n_failures = 1,
                                 .failures = &failure};
    world.flights[0].answers[1] = -77;
    assert_int_equal(scheduler_complete(world.scheduler, 1, &result, NULL), STATUS_OK);
    free(world.flights[0].answers);
    world.n_flights = 0;
    world_events(&world);
    assert_true(told(2)->ended);
    assert_string_equal(told(2)->text, "not finite");
    assert_false(told(1)->ended);
    assert_true(world_form(&world));
    /* Too few tokens; then one that is no code: the plan counts as failed. */
    struct error err;
    result = (struct plan_result){
        .number = world.plan->number, .n_tokens = 1, .tokens = world.flights[0].answers};
    assert_int_equal(scheduler_complete(world.scheduler, 1, &result, &err), STATUS_INVALID);
    assert_int_equal(scheduler_complete(world.scheduler, 1, &result, &err), STATUS_NOT_FOUND);
    free(world.flights[0].answers);
    world.n_flights = 0;
    world_events(&world);
    assert_int_equal(world.n_ended, 3);
    assert_int_equal(world_submit_picture(&world, 4, 10, 64, 64, 4, NULL), STATUS_OK);
    assert_true(world_form(&world));
    world.flights[0].answers[0] = FAKE_BOS;
    assert_int_equal(world_answer(&world, 0, 1000, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "cannot stand there"));
    assert_int_equal(told(4)->ending, SCHEDULER_FAILED);
    world_run(&world, 10);
    check_empty();
    world_fini(&world);
}

static void test_reset_goes_on_from_tokens(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(2, 64);
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 4; id++)
        assert_int_equal(world_submit_picture(&world, id, 30, 128, 128, id == 2 ? 1 : 4, NULL),
                         STATUS_OK);
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 4, NULL), STATUS_OK);
    for (int life = 0; life < 4; life++) {
        for (int i = 0; i < 12; i++) {
            while (world_form(&world))
                ;
            assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
        }
        uint64_t old = world.n_flights > 0 ? world.flights[0].number : 1000;
        scheduler_reset(world.scheduler, world.now, 2 + (uint64_t)life);
        fake_stages_clear(&world.stages);
        world.stages.epoch = 2 + (uint64_t)life;
        world.stages.next_number = 1;
        while (world.n_flights > 0)
            free(world.flights[--world.n_flights].answers);
        struct plan_result late = {.number = old};
        assert_int_equal(scheduler_complete(world.scheduler, 1, &late, NULL), STATUS_NOT_FOUND);
        assert_int_equal(blocks_in_use(), 0);
    }
    world_run(&world, 10000);
    for (uint64_t id = 1; id <= 3; id++) {
        static int32_t tokens[WORLD_TOKENS_MAX];
        alone(id, 30, 128, 128, id == 2 ? 1 : 4, tokens);
        assert_int_equal(told(id)->ending, SCHEDULER_FINISHED);
        assert_memory_equal(tokens, told(id)->tokens, sizeof(*tokens) * (size_t)told(id)->n_tokens);
    }
    check_empty();
    world_fini(&world);
}

static void test_resume_from_a_log(void **state)
{
    (void)state;
    static int32_t tokens[WORLD_TOKENS_MAX];
    alone(7, 20, 64, 64, 4, tokens);
    int total = picture_tokens(64, 64);
    for (int n_known = 0; n_known <= total; n_known++) {
        struct scheduler_options options = world_options(1, 64);
        world_init(&world, &options);
        int32_t prompt[64];
        struct scheduler_request request = {
            .id = 7, .prompt = prompt, .generated = tokens, .n_generated = n_known};
        request.n_prompt = fake_picture_prompt(prompt, 20, 64, 64, 7);
        request.sampling = (struct plan_sampling){.seed = 7, .temperature = 1, .guidance = 4};
        assert_int_equal(world_submit(&world, &request, NULL), STATUS_OK);
        world_run(&world, 1000);
        assert_int_equal(told(7)->ending, SCHEDULER_FINISHED);
        assert_memory_equal(tokens, told(7)->tokens, sizeof(*tokens) * (size_t)total);
        world_fini(&world);
    }
    struct scheduler_options options = world_options(1, 64);
    world_init(&world, &options);
    int32_t prompt[64];
    struct scheduler_request request = {
        .id = 7, .prompt = prompt, .generated = tokens, .n_generated = 9};
    request.n_prompt = fake_picture_prompt(prompt, 20, 64, 64, 7);
    request.sampling = (struct plan_sampling){.temperature = 1, .guidance = 4};
    tokens[4] = FAKE_CODE_BASE; /* where the new line stands */
    struct error err;
    assert_int_equal(world_submit(&world, &request, &err), STATUS_INVALID);
    assert_string_equal(err.text, "generated token 4 is id 100, expected 34");
    world_fini(&world);
}

static void test_cancel_in_each_state(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(2, 64);
    options.running_max = 2;
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 128, 128, 4, NULL), STATUS_OK);
    /* 3 waits. */
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 3, NULL), STATUS_OK);
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 3, NULL), STATUS_NOT_FOUND);
    world_events(&world);
    assert_int_equal(told(3)->ending, SCHEDULER_CANCELED);
    assert_false(told(3)->started);
    while (world_form(&world))
        ;
    /* 1 is in the stages; its blocks fall free in the next plan, its token is dropped. */
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 1, NULL), STATUS_OK);
    world_events(&world);
    int before = world.stages.blocks_used;
    assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
    assert_int_equal(told(1)->n_tokens, 0);
    while (world.n_flights > 0)
        assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
    assert_true(world_form(&world));
    assert_int_equal(world.plan->n_release, 2);
    assert_true(world.stages.blocks_used < before);
    /* 2 between two steps: nothing else is to do, so a plan goes that only releases. */
    assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 2, NULL), STATUS_OK);
    assert_true(world_form(&world));
    assert_int_equal(world.plan->n_rows, 0);
    assert_int_equal(world.plan->n_release, 2);
    assert_false(world_form(&world));
    assert_int_equal(world_answer(&world, 0, 0, NULL), STATUS_OK);
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 2, NULL), STATUS_NOT_FOUND);
    assert_int_equal(scheduler_cancel(world.scheduler, 1, 99, NULL), STATUS_NOT_FOUND);
    check_empty();
    world_fini(&world);
}

static void test_answers_in_any_order(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(4, 500);
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 12; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 64, 64, 4, NULL), STATUS_OK);
    uint64_t random = 3;
    for (int n = 0; n < 10000; n++) {
        while (world_form(&world))
            ;
        if (world.n_flights == 0)
            break;
        random = fake_mix(random, 5);
        assert_int_equal(
            world_answer(&world, (int)(random % (uint64_t)world.n_flights), 1000, NULL), STATUS_OK);
    }
    for (uint64_t id = 1; id <= 12; id++) {
        static int32_t tokens[WORLD_TOKENS_MAX];
        alone(id, 10, 64, 64, 4, tokens);
        assert_memory_equal(tokens, told(id)->tokens, sizeof(*tokens) * (size_t)told(id)->n_tokens);
    }
    check_empty();
    world_fini(&world);
}

static void test_bad_requests(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 64);
    world_init(&world, &options);
    struct error err;
    int32_t prompt[64];
    struct scheduler_request good = {.id = 1, .prompt = prompt};
    good.n_prompt = fake_picture_prompt(prompt, 5, 32, 32, 1);
    good.sampling = (struct plan_sampling){.temperature = 1, .guidance = 1};
    struct scheduler_request bad = good;
    bad.n_prompt--;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    bad = good;
    bad.n_prompt = 0;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    bad = good;
    bad.sampling.temperature = -1;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    bad = good;
    bad.sampling.guidance = 0.0f / 0.0f;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    bad = good;
    prompt[2] = FAKE_IDS;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    prompt[2] = -1;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    prompt[2] = FAKE_IMAGE_START; /* no size behind it */
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    prompt[2] = 3;
    bad.mode = SCHEDULER_PROBE;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    int32_t positions[] = {3, 3};
    bad.positions = positions;
    bad.n_positions = 2;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    positions[1] = bad.n_prompt;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    bad = good;
    bad.mode = SCHEDULER_FREE;
    bad.n_prompt -= 3;
    assert_int_equal(world_submit(&world, &bad, &err), STATUS_INVALID);
    assert_int_equal(world_submit(&world, &good, &err), STATUS_OK);
    struct scheduler_figures figures;
    scheduler_figures(world.scheduler, 1, &figures);
    assert_int_equal(figures.refused, 11);
    world_fini(&world); /* with a request alive */
}

static void test_limits_at_the_door(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 8);
    options.max_positions = 300;
    options.queue_max = 3;
    options.running_max = 2;
    world_init(&world, &options);
    struct error err;
    /* 14 + 273 - 3 = 284 positions fit; with guidance 5 + 5 blocks do not. */
    assert_int_equal(world_submit_picture(&world, 1, 10, 256, 256, 1, &err), STATUS_OK);
    assert_int_equal(world_submit_picture(&world, 2, 10, 256, 256, 4, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "cache blocks"));
    assert_int_equal(world_submit_picture(&world, 2, 40, 256, 256, 1, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "positions"));
    assert_int_equal(world_submit_picture(&world, 1, 10, 32, 32, 1, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "lives already"));
    for (uint64_t id = 2; id <= 5; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 32, 32, 1, &err), STATUS_OK);
    assert_int_equal(world_submit_picture(&world, 6, 10, 32, 32, 1, &err), STATUS_FULL);
    struct scheduler_progress progress;
    assert_int_equal(scheduler_progress(world.scheduler, 1, 5, &progress, &err), STATUS_OK);
    assert_int_equal(progress.queue_position, 3);
    assert_int_equal(progress.tokens_total, picture_tokens(32, 32));
    assert_int_equal(scheduler_progress(world.scheduler, 1, 6, &progress, &err), STATUS_NOT_FOUND);
    world_run(&world, 10000);
    assert_int_equal(world.n_ended, 5);
    assert_int_equal(world_submit_picture(&world, 6, 10, 32, 32, 1, &err), STATUS_OK);
    world_run(&world, 10000);
    world_fini(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_plan),
        cmocka_unit_test(test_failed_row_and_bad_answers),
        cmocka_unit_test(test_reset_goes_on_from_tokens),
        cmocka_unit_test(test_resume_from_a_log),
        cmocka_unit_test(test_cancel_in_each_state),
        cmocka_unit_test(test_answers_in_any_order),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_limits_at_the_door),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
