/*
 * scheduler_test.c - goal: driven by events alone, every accepted request ends exactly once with
 * the tokens it has when it is alone, rows stand in plans as plan.h promises, and no block is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "scheduler/fake_world.h"

static void test_guided_picture(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(2, 64);
    world_init(&world, &options);
    assert_int_equal(world_submit_picture(&world, 1, 10, 64, 96, 4, NULL), STATUS_OK);
    assert_true(world_form(&world));
    /* A short prompt goes whole: 14 tokens and the opening of the picture, and both draw together.
     */
    assert_int_equal(world.plan->n_rows, 2);
    assert_int_equal(world.plan->rows[0].role, PLAN_CONDITIONAL);
    assert_int_equal(world.plan->rows[0].n_tokens, 14);
    assert_int_equal(world.plan->rows[1].role, PLAN_UNCONDITIONAL);
    assert_int_equal(world.plan->rows[1].start, 0);
    assert_int_equal(world.plan->rows[1].n_tokens, 3);
    assert_int_equal(world.plan->rows[1].tokens[0], FAKE_IMAGE_START);
    assert_int_equal(world.plan->rows[0].outputs[0].offset, 13);
    assert_int_equal(world.plan->rows[1].outputs[0].offset, 2);
    assert_int_equal(world.plan->rows[0].outputs[0].ordinal, 0);
    assert_int_equal(world.plan->rows[0].outputs[0].set, PLAN_SET_CODES);
    assert_int_equal(world.plan->n_draws, 1);
    assert_false(world_form(&world));
    /* 4 x 6 codes are 24 draws; new lines cost no step, the end is not fed. */
    assert_int_equal(world_run(&world, 100), 24 - 1 + 1);
    assert_true(told(1)->started);
    assert_int_equal(told(1)->ending, SCHEDULER_FINISHED);
    assert_int_equal(told(1)->finish, SCHEDULER_COMPLETE);
    assert_int_equal(told(1)->n_tokens, picture_tokens(64, 96));
    assert_int_equal(told(1)->tokens[4], FAKE_NEW_LINE);
    assert_int_equal(told(1)->tokens[30], FAKE_IMAGE_END);
    check_empty();
    world_fini(&world);
}

static void test_forced_rows(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 64);
    world_init(&world, &options);
    assert_int_equal(world_submit_picture(&world, 1, 10, 32, 64, 1, NULL), STATUS_OK);
    int n_rows = 0, n_tokens = 0, ordinal = -1;
    while (world_form(&world)) {
        const struct plan_row *row = &world.plan->rows[0];
        if (world.plan->n_rows == 0)
            break;
        assert_int_equal(row->role, PLAN_PLAIN);
        assert_int_equal(row->n_outputs, 1);
        assert_int_equal(row->outputs[0].offset, row->n_tokens - 1);
        assert_true(row->outputs[0].ordinal > ordinal);
        ordinal = row->outputs[0].ordinal;
        /* Rows of two codes: the second goes with its new line, so ordinals 0 1 3 4 6 7 9 10. */
        if (n_rows > 0) {
            assert_int_equal(row->n_tokens, ordinal % 3 == 0 ? 2 : 1);
            assert_int_equal(row->start, 14 + n_tokens - 14);
        }
        n_tokens += row->n_tokens;
        n_rows++;
        assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
    }
    assert_int_equal(n_rows, 8);
    assert_int_equal(n_tokens, 14 + picture_tokens(32, 64) - 3);
    world_run(&world, 10);
    check_empty();
    world_fini(&world);
}

static void test_many_equal_alone(void **state)
{
    (void)state;
    static const int sizes[][2] = {{32, 32}, {64, 96}, {128, 128}, {256, 64}, {96, 224}};
    for (int n_stages = 1; n_stages <= 8; n_stages *= 2) {
        struct scheduler_options options = world_options(n_stages, 120);
        options.prefill_chunk = n_stages == 2 ? 7 : n_stages == 4 ? 1 : 0;
        world_init(&world, &options);
        for (uint64_t id = 1; id <= 40; id++) {
            const int *size = sizes[id % 5];
            assert_int_equal(world_submit_picture(&world, id, (int)(id * 5 % 90), size[0], size[1],
                                                  id % 3 ? 4 : 1, NULL),
                             STATUS_OK);
        }
        world_run(&world, 100000);
        for (uint64_t id = 1; id <= 40; id++) {
            const int *size = sizes[id % 5];
            static int32_t tokens[WORLD_TOKENS_MAX];
            assert_int_equal(told(id)->ending, SCHEDULER_FINISHED);
            assert_int_equal(told(id)->n_tokens, picture_tokens(size[0], size[1]));
            alone(id, (int)(id * 5 % 90), size[0], size[1], id % 3 ? 4 : 1, tokens);
            assert_memory_equal(tokens, told(id)->tokens,
                                sizeof(*tokens) * (size_t)told(id)->n_tokens);
        }
        check_empty();
        world_fini(&world);
    }
}

static void test_chunks_keep_pairs_together(void **state)
{
    (void)state;
    for (int chunk = 1; chunk <= 70; chunk += chunk < 5 ? 1 : 13) {
        struct scheduler_options options = world_options(1, 64);
        world_init(&world, &options);
        int32_t prompt[200];
        struct scheduler_request request = {.id = 1, .prompt = prompt, .chunk = chunk};
        request.n_prompt = fake_picture_prompt(prompt, 150, 32, 32, 1);
        request.sampling = (struct plan_sampling){.temperature = 1, .guidance = 3};
        assert_int_equal(world_submit(&world, &request, NULL), STATUS_OK);
        bool drew = false;
        int n = 0;
        while (!drew && world_form(&world)) {
            n += world.plan->n_tokens;
            drew = world.plan->n_draws > 0;
            if (drew)
                assert_int_equal(world.plan->rows[1].role, PLAN_UNCONDITIONAL);
            assert_true(world.plan->n_tokens <= (chunk > 2 ? chunk : 2));
            assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
        }
        assert_int_equal(n, 154 + 3);
        world_run(&world, 100);
        assert_int_equal(told(1)->ending, SCHEDULER_FINISHED);
        world_fini(&world);
    }
}

static void test_prefill_flows_through_idle_stages(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(4, 64);
    options.prefill_chunk = 64;
    world_init(&world, &options);
    assert_int_equal(world_submit_picture(&world, 1, 500, 32, 32, 4, NULL), STATUS_OK);
    int n = 0;
    while (world_form(&world))
        n++;
    /* Parts of one prompt follow each other without waiting: as many as a full set of
     * micro-batches. */
    assert_int_equal(n, 5);
    world_run(&world, 100);
    assert_int_equal(told(1)->ending, SCHEDULER_FINISHED);
    world_fini(&world);
}

static void test_prefill_does_not_delay_beyond_the_bound(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 512);
    options.max_positions = 4096;
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 8; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 256, 256, 4, NULL), STATUS_OK);
    /* A machine where every token costs the same: 8 pairs decode in 16 units. */
    for (int i = 0; i < 200; i++) {
        assert_true(world_form(&world));
        world.now += world.plan->n_tokens * 100000;
        assert_int_equal(world_answer(&world, 0, world.plan->n_tokens * 100000, NULL), STATUS_OK);
    }
    assert_int_equal(world_submit_picture(&world, 9, 900, 32, 32, 4, NULL), STATUS_OK);
    int n_mixed = 0;
    for (int i = 0; i < 100; i++) {
        if (!world_form(&world))
            break;
        if (world.plan->n_draws >= 8 && world.plan->n_tokens > 20) {
            n_mixed++;
            assert_true(world.plan->n_tokens <= 16 * 2 + 8);
        }
        world.now += world.plan->n_tokens * 100000;
        assert_int_equal(world_answer(&world, 0, world.plan->n_tokens * 100000, NULL), STATUS_OK);
    }
    assert_true(n_mixed > 10);
    world_run(&world, 10000);
    world_fini(&world);
}

static void test_memory_peak(void **state)
{
    (void)state;
    /* 256x256 unguided: 272 tokens of which 270 positions with the prompt of 14 less 3: 283 -> 5
     * blocks. */
    struct scheduler_options options = world_options(1, 15);
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 9; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 256, 256, 1, NULL), STATUS_OK);
    world_run(&world, 10000);
    for (uint64_t id = 1; id <= 9; id++)
        assert_int_equal(told(id)->ending, SCHEDULER_FINISHED);
    struct scheduler_figures figures;
    scheduler_figures(world.scheduler, world.now, &figures);
    assert_int_equal(figures.preempted, 0);
    assert_true(world.stages.blocks_peak > 12);
    assert_true(world.stages.blocks_peak <= 15);
    check_empty();
    world_fini(&world);
}

static void test_memory_lets_staggered_pictures_overlap(void **state)
{
    (void)state;
    /* Room for two full pictures; a third may start when the others are well on: its small blocks
     * fit beside them. */
    struct scheduler_options options = world_options(1, 12);
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 12; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 256, 256, 1, NULL), STATUS_OK);
    int most = 0, n = 0;
    while (world_form(&world) || world.n_flights > 0) {
        struct scheduler_figures figures;
        scheduler_figures(world.scheduler, world.now, &figures);
        most = figures.n_running > most ? figures.n_running : most;
        if (world.n_flights > 0)
            assert_int_equal(world_answer(&world, 0, 1000000, NULL), STATUS_OK);
        assert_true(n++ < 10000);
    }
    assert_int_equal(world.n_ended, 12);
    assert_true(most > 2);
    check_empty();
    world_fini(&world);
}

static void test_deep_backlog_starts_spread_out(void **state)
{
    (void)state;
    /* Pictures of 5 blocks: 8 fit when they start together; spread out, about twice as many run. */
    struct scheduler_options options = world_options(1, 40);
    options.queue_max = 100;
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 90; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 256, 256, 1, NULL), STATUS_OK);
    double running = 0;
    int n = 0;
    while (world.n_ended < 60) {
        while (world_form(&world))
            ;
        struct scheduler_figures figures;
        scheduler_figures(world.scheduler, world.now, &figures);
        running += world.n_ended >= 30 ? figures.n_running : 0;
        n += world.n_ended >= 30;
        world.now += 1000000;
        assert_int_equal(world_answer(&world, 0, 900000, NULL), STATUS_OK);
    }
    assert_true(running / n > 10);
    world_run(&world, 100000);
    assert_int_equal(world.n_ended, 90);
    check_empty();
    world_fini(&world);
}

static void test_text_goes_back_when_the_pool_is_full(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 11);
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 15; id++)
        assert_int_equal(world_submit_text(&world, id, 40, 500, 1, NULL), STATUS_OK);
    world_run(&world, 100000);
    for (uint64_t id = 1; id <= 15; id++) {
        assert_int_equal(told(id)->ending, SCHEDULER_FINISHED);
        assert_true(told(id)->finish == SCHEDULER_END_OF_TURN ||
                    told(id)->finish == SCHEDULER_LENGTH);
    }
    struct scheduler_figures figures;
    scheduler_figures(world.scheduler, 1, &figures);
    assert_true(figures.preempted > 0);
    check_empty();
    /* The same tokens as alone, whether it was sent back or not. */
    for (uint64_t id = 1; id <= 15; id++) {
        static struct world other;
        world_init(&other, &options);
        assert_int_equal(world_submit_text(&other, id, 40, 500, 1, NULL), STATUS_OK);
        world_run(&other, 100000);
        assert_int_equal(other.requests[id].n_tokens, told(id)->n_tokens);
        assert_memory_equal(other.requests[id].tokens, told(id)->tokens,
                            sizeof(int32_t) * (size_t)told(id)->n_tokens);
        world_fini(&other);
    }
    world_fini(&world);
}

static void test_pictures_push_text_out(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 12);
    world_init(&world, &options);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(world_submit_text(&world, id, 100, 400, 1, NULL), STATUS_OK);
    assert_int_equal(world_submit_picture(&world, 4, 10, 256, 256, 1, NULL), STATUS_OK);
    assert_int_equal(world_submit_picture(&world, 5, 10, 256, 256, 1, NULL), STATUS_OK);
    world_run(&world, 100000);
    for (uint64_t id = 1; id <= 5; id++)
        assert_int_equal(told(id)->ending, SCHEDULER_FINISHED);
    check_empty();
    world_fini(&world);
}

static void test_guided_text_opens_pictures(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(2, 200);
    world_init(&world, &options);
    int n_pairs = 0, n_listed = 0, n_forbidding = 0;
    for (uint64_t id = 1; id <= 20; id++)
        assert_int_equal(world_submit_text(&world, id, 5, 300, 4, NULL), STATUS_OK);
    for (int n = 0; n < 10000; n++) {
        while (world_form(&world)) {
            for (int i = 0; i < world.plan->n_rows; i++) {
                const struct plan_row *row = &world.plan->rows[i];
                n_pairs += row->role == PLAN_CONDITIONAL;
                if (row->n_outputs == 0)
                    continue;
                /* Guidance counts for codes only: not for text, not for the sizes. */
                assert_true((row->outputs[0].set == PLAN_SET_CODES) == (row->role != PLAN_PLAIN));
                n_listed += row->outputs[0].set == PLAN_SET_LISTED;
                n_forbidding +=
                    row->outputs[0].set == PLAN_SET_TEXT && row->outputs[0].n_listed == 1;
            }
        }
        if (world.n_flights == 0)
            break;
        assert_int_equal(world_answer(&world, 0, 1000000, NULL), STATUS_OK);
    }
    assert_int_equal(world.n_ended, 20);
    assert_true(n_pairs > 50);
    assert_true(n_listed > 4);
    assert_true(n_forbidding > 0);
    check_empty();
    world_fini(&world);
}

static void test_probe(void **state)
{
    (void)state;
    for (int chunk = 0; chunk <= 64; chunk = chunk ? chunk * 4 : 1) {
        struct scheduler_options options = world_options(2, 64);
        world_init(&world, &options);
        int32_t prompt[700], positions[150];
        for (int i = 0; i < 700; i++)
            prompt[i] = i % 32;
        for (int i = 0; i < 150; i++)
            positions[i] = i < 100 ? i : 3 * i;
        struct scheduler_request request = {.id = 1,
                                            .mode = SCHEDULER_PROBE,
                                            .prompt = prompt,
                                            .n_prompt = 700,
                                            .positions = positions,
                                            .n_positions = 150,
                                            .chunk = chunk};
        assert_int_equal(world_submit(&world, &request, NULL), STATUS_OK);
        int n_logits = 0, n_tokens = 0;
        for (int n = 0; n < 2000 && !told(1)->ended; n++) {
            while (world_form(&world)) {
                for (int i = 0; i < world.plan->n_rows; i++) {
                    const struct plan_row *row = &world.plan->rows[i];
                    assert_true(row->n_outputs <= 64);
                    n_tokens += row->n_tokens;
                    for (int k = 0; k < row->n_outputs; k++) {
                        assert_int_equal(row->outputs[k].kind, PLAN_LOGITS);
                        assert_int_equal(row->outputs[k].ordinal, n_logits++);
                        assert_int_equal(row->start + row->outputs[k].offset,
                                         positions[row->outputs[k].ordinal]);
                    }
                }
            }
            if (world.n_flights > 0)
                assert_int_equal(world_answer(&world, 0, 1000, NULL), STATUS_OK);
        }
        assert_int_equal(told(1)->ending, SCHEDULER_FINISHED);
        assert_int_equal(n_logits, 150);
        assert_int_equal(n_tokens, positions[149] + 1);
        world_run(&world, 10);
        check_empty();
        world_fini(&world);
    }
}

static void test_shared_prompt(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(2, 256);
    world_init(&world, &options);
    int32_t prompt[600];
    struct scheduler_request request = {.prompt = prompt};
    request.n_prompt = fake_picture_prompt(prompt, 500, 64, 64, 1);
    for (uint64_t id = 1; id <= 4; id++) {
        request.id = id;
        request.sampling = (struct plan_sampling){
            .seed = 5, .picture_index = (uint32_t)id, .temperature = 1, .guidance = 4};
        assert_int_equal(world_submit(&world, &request, NULL), STATUS_OK);
    }
    world_run(&world, 10000);
    assert_int_equal(world.n_ended, 4);
    /* Three requests take over all but the last of 504 tokens. */
    assert_int_equal(world.stages.n_shared, 3 * 503);
    for (uint64_t id = 1; id <= 4; id++) {
        static struct world other;
        world_init(&other, &options);
        request.id = id;
        request.sampling.picture_index = (uint32_t)id;
        assert_int_equal(world_submit(&other, &request, NULL), STATUS_OK);
        world_run(&other, 1000);
        assert_memory_equal(other.requests[id].tokens, told(id)->tokens,
                            sizeof(int32_t) * (size_t)told(id)->n_tokens);
        world_fini(&other);
    }
    check_empty();
    world_fini(&world);
}

/* Of a prompt in the stages a newcomer takes over what is worth a copy, to the position. */
static void test_shared_beginning(void **state)
{
    (void)state;
    static const struct {
        int n_same, n_shared; /* behind the start of the conversation; with it */
    } cases[] = {{5, 0}, {7, 8}, {40, 41}, {63, 64}, {68, 64}, {72, 73}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scheduler_options options = world_options(2, 64);
        world_init(&world, &options);
        int32_t prompt[200];
        for (uint64_t id = 1; id <= 2; id++) {
            struct scheduler_request request = {.id = id, .prompt = prompt};
            request.n_prompt =
                fake_alike_prompt(prompt, cases[i].n_same, 100, 64, 64, (uint32_t)id);
            prompt[1 + cases[i].n_same] = 3 + (int32_t)id;
            request.sampling = (struct plan_sampling){.seed = id, .temperature = 1, .guidance = 4};
            assert_int_equal(world_submit(&world, &request, NULL), STATUS_OK);
            for (int n = 0; n < 6; n++) { /* the first draws before the second comes */
                while (world_form(&world))
                    ;
                assert_int_equal(world_answer(&world, 0, 900000, NULL), STATUS_OK);
            }
        }
        world_run(&world, 1000);
        assert_int_equal(world.n_ended, 2);
        assert_int_equal(world.stages.n_shared, cases[i].n_shared);
        struct scheduler_figures figures;
        scheduler_figures(world.scheduler, world.now, &figures);
        assert_int_equal(figures.prefix_queries, 2 * 104);
        assert_int_equal(figures.prefix_hits, cases[i].n_shared);
        check_empty();
        world_fini(&world);
    }
}

static void test_slots(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(4, 2000);
    options.micro_batches = 5;
    world_init(&world, &options);
    struct scheduler_figures figures;
    assert_int_equal(world_submit_picture(&world, 1, 10, 256, 256, 4, NULL), STATUS_OK);
    assert_true(world_form(&world));
    assert_false(world_form(&world)); /* one request: one micro-batch */
    for (uint64_t id = 2; id <= 20; id++)
        assert_int_equal(world_submit_picture(&world, id, 10, 256, 256, 4, NULL), STATUS_OK);
    for (int i = 0; i < 100; i++) {
        while (world_form(&world))
            ;
        scheduler_figures(world.scheduler, world.now, &figures);
        assert_int_equal(figures.n_slots, 5);
        if (i > 20) {
            assert_int_equal(world.n_flights, 5);
            assert_int_equal(world.plan->n_draws, 4); /* 20 requests in 5 equal parts */
        }
        assert_int_equal(world_answer(&world, 0, 1000000, NULL), STATUS_OK);
    }
    for (uint64_t id = 1; id <= 20; id++) {
        if (id % 5 != 0)
            assert_int_equal(scheduler_cancel(world.scheduler, world.now, id, NULL), STATUS_OK);
    }
    for (int i = 0; i < 20; i++) {
        while (world_form(&world))
            ;
        assert_int_equal(world_answer(&world, 0, 1000000, NULL), STATUS_OK);
    }
    while (world_form(&world))
        ;
    assert_int_equal(world.n_flights, 4); /* four requests in as many micro-batches */
    world_run(&world, 100000);
    check_empty();
    world_fini(&world);
}

static void test_priority(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 100);
    options.running_max = 1;
    world_init(&world, &options);
    int32_t prompt[64];
    for (uint64_t id = 1; id <= 4; id++) {
        struct scheduler_request request = {
            .id = id, .prompt = prompt, .priority = id == 4 ? 5 : 0};
        request.n_prompt = fake_picture_prompt(prompt, 5, 32, 32, 1);
        request.sampling = (struct plan_sampling){.temperature = 1, .guidance = 1};
        assert_int_equal(world_submit(&world, &request, NULL), STATUS_OK);
    }
    struct scheduler_progress progress;
    assert_int_equal(scheduler_progress(world.scheduler, 1, 4, &progress, NULL), STATUS_OK);
    assert_int_equal(progress.queue_position, 1);
    assert_int_equal(scheduler_progress(world.scheduler, 1, 3, &progress, NULL), STATUS_OK);
    assert_int_equal(progress.queue_position, 3);
    assert_true(progress.remaining_ns < 0);
    world_run(&world, 1000);
    assert_int_equal(world.n_ended, 4);
    world_fini(&world);
}

static void test_progress_and_remaining_time(void **state)
{
    (void)state;
    struct scheduler_options options = world_options(1, 100);
    world_init(&world, &options);
    assert_int_equal(world_submit_picture(&world, 1, 10, 256, 256, 4, NULL), STATUS_OK);
    struct scheduler_progress progress;
    int64_t end = 0;
    for (int n = 0; n < 300 && !told(1)->ended; n++) {
        while (world_form(&world))
            ;
        if (world.n_flights == 0)
            break;
        world.now += 10500000;
        assert_int_equal(world_answer(&world, 0, 10000000, NULL), STATUS_OK);
        if (n == 128) {
            assert_int_equal(scheduler_progress(world.scheduler, world.now, 1, &progress, NULL),
                             STATUS_OK);
            assert_true(progress.running);
            assert_int_equal(progress.tokens_done, 129 + 8);
            assert_int_equal(progress.tokens_total, 273);
            end = world.now + progress.remaining_ns;
        }
    }
    assert_true(told(1)->ended);
    int64_t off = end > world.now ? end - world.now : world.now - end;
    assert_true(off < (world.now - 1) / 20);
    world_fini(&world);
}

static void test_equal_events_equal_plans(void **state)
{
    (void)state;
    uint64_t hashes[2];
    for (int k = 0; k < 2; k++) {
        struct scheduler_options options = world_options(3, 60);
        world_init(&world, &options);
        for (uint64_t id = 1; id <= 30; id++)
            assert_int_equal(
                world_submit_picture(&world, id, (int)id, 32 * (1 + (int)id % 5), 96, 4, NULL),
                STATUS_OK);
        world_run(&world, 100000);
        hashes[k] = world.plans_hash;
        world_fini(&world);
    }
    assert_true(hashes[0] == hashes[1]);
}

static void test_options(void **state)
{
    (void)state;
    static struct fake_vocabulary vocabulary;
    fake_vocabulary_init(&vocabulary);
    struct scheduler_options good = world_options(1, 8);
    struct scheduler *s;
    struct error err;
    assert_int_equal(scheduler_create(&s, &good, &err), STATUS_INVALID); /* no vocabulary */
    good.vocabulary = &vocabulary.vocabulary;
    struct scheduler_options bad = good;
    bad.n_stages = 65;
    assert_int_equal(scheduler_create(&s, &bad, &err), STATUS_INVALID);
    assert_string_equal(err.text, "65 stages, expected 1 to 64");
    bad = good;
    bad.rows_max = 8;
    assert_int_equal(scheduler_create(&s, &bad, &err), STATUS_INVALID);
    bad = good;
    bad.kv_blocks = 0;
    assert_int_equal(scheduler_create(&s, &bad, &err), STATUS_INVALID);
    assert_null(s);
    assert_int_equal(scheduler_create(&s, &good, &err), STATUS_OK);
    assert_null(scheduler_next_plan(s, 1));
    scheduler_destroy(s);
    scheduler_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guided_picture),
        cmocka_unit_test(test_forced_rows),
        cmocka_unit_test(test_many_equal_alone),
        cmocka_unit_test(test_chunks_keep_pairs_together),
        cmocka_unit_test(test_prefill_flows_through_idle_stages),
        cmocka_unit_test(test_prefill_does_not_delay_beyond_the_bound),
        cmocka_unit_test(test_memory_peak),
        cmocka_unit_test(test_memory_lets_staggered_pictures_overlap),
        cmocka_unit_test(test_deep_backlog_starts_spread_out),
        cmocka_unit_test(test_text_goes_back_when_the_pool_is_full),
        cmocka_unit_test(test_pictures_push_text_out),
        cmocka_unit_test(test_guided_text_opens_pictures),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_shared_prompt),
        cmocka_unit_test(test_shared_beginning),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_progress_and_remaining_time),
        cmocka_unit_test(test_equal_events_equal_plans),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
