/*
 * scheduler_random_test.c - goal: whatever comes in whatever order, every accepted request ends
 * exactly once, finished ones have the tokens they would have alone, no block is lost, and nothing
 * stands still while work waits.
 *
 * Usage: scheduler_random_test [FIRST_SEED N_SEEDS]. The seed of a failing run is printed before it
 * starts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "scheduler/fake_world.h"

enum { EVENTS = 1500, REQUESTS = 120, STILL_MAX = 20000 };

static uint64_t first_seed = 1, n_seeds = 60;
static uint64_t random_state;

static int roll(int n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((random_state >> 33) % (uint64_t)n);
}

static struct world other;
static int32_t prompts[REQUESTS + 1][400];
static struct scheduler_request specs[REQUESTS + 1];
static int positions[REQUESTS + 1][8];

static bool texts; /* a run with few pictures, so that the pool runs full of texts */

static void make_request(uint64_t id)
{
    struct scheduler_request *r = &specs[id];
    int32_t *prompt = prompts[id];
    static const float guidances[] = {1, 4, 0, 1.5f};
    int kind = roll(10) + (texts ? 3 : 0), n_text = roll(8) ? roll(40) : roll(300);
    *r = (struct scheduler_request){
        .id = id, .prompt = prompt, .priority = roll(6) ? 0 : roll(3) - 1};
    r->chunk = roll(8) ? 0 : 1 + roll(30);
    r->sampling =
        (struct plan_sampling){.seed = id, .temperature = 1, .guidance = guidances[roll(4)]};
    /* A few salts only, so that some prompts are equal and share blocks. */
    r->n_prompt = fake_picture_prompt(prompt, n_text, 32 * (1 + roll(4)), 32 * (1 + roll(4)),
                                      (uint32_t)roll(2));
    if (kind < 6)
        return;
    r->n_prompt -= 3;
    if (kind != 9) {
        r->mode = SCHEDULER_FREE;
        r->max_tokens = 1 + roll(400);
        return;
    }
    r->mode = SCHEDULER_PROBE;
    int at = -1;
    for (r->n_positions = 0; r->n_positions < 8 && at + 1 < r->n_prompt; r->n_positions++) {
        at += 1 + roll(r->n_prompt - at - 1);
        positions[id][r->n_positions] = at;
    }
    r->positions = positions[id];
}

static struct scheduler_options random_options(void)
{
    struct scheduler_options options =
        world_options(1 + roll(6), roll(2) ? 10 + roll(14) : 16 + roll(60));
    options.max_positions = 700;
    options.queue_max = 10 + roll(100);
    options.running_max = 1 + roll(30);
    options.rows_max = roll(3) ? 512 : 16 + roll(40);
    options.micro_batches = roll(3) ? 0 : 1 + roll(8);
    options.prefill_chunk = roll(3) ? 0 : 1 + roll(100);
    return options;
}

static void drop_flight(int index)
{
    free(world.flights[index].answers);
    for (int i = index; i + 1 < world.n_flights; i++)
        world.flights[i] = world.flights[i + 1];
    world.n_flights--;
}

/* The stages start anew, as after the loss of a worker. */
static void reset(void)
{
    uint64_t epoch = world.stages.epoch + 1;
    scheduler_reset(world.scheduler, world.now, epoch);
    fake_stages_clear(&world.stages);
    world.stages.epoch = epoch;
    world.stages.next_number = 1;
    while (world.n_flights > 0)
        drop_flight(0);
}

static void fail_one(void)
{
    int index = roll(world.n_flights);
    uint64_t number = world.flights[index].number;
    assert_int_equal(scheduler_fail_plan(world.scheduler, world.now, number, "lost", NULL),
                     STATUS_OK);
    drop_flight(index);
}

static void one_event(uint64_t *next_id)
{
    int event = roll(100);
    world.now += roll(1000000);
    if (event < 12 && *next_id <= REQUESTS) {
        make_request(*next_id);
        world_submit(&world, &specs[*next_id], NULL);
        ++*next_id;
    } else if (event < 14 && *next_id > 1) {
        (void)!scheduler_cancel(world.scheduler, world.now, 1 + (uint64_t)roll((int)*next_id - 1),
                                NULL);
    } else if (event == 14 && roll(4) == 0 && world.n_flights > 0) {
        fail_one();
    } else if (event == 15 && roll(8) == 0) {
        reset();
    } else if (event < 60) {
        world_form(&world);
    } else if (world.n_flights > 0) {
        int index = roll(3) ? 0 : roll(world.n_flights);
        assert_int_equal(world_answer(&world, index, roll(2) ? 0 : 100000 + roll(3000000), NULL),
                         STATUS_OK);
    }
    if (roll(2))
        world_events(&world);
}

static void check_tokens(uint64_t id, const struct scheduler_options *like)
{
    const struct world_request *r = &world.requests[id];
    if (r->ending != SCHEDULER_FINISHED || r->n_tokens == 0)
        return;
    struct scheduler_options options = world_options(1, like->kv_blocks);
    options.max_positions = like->max_positions;
    world_init(&other, &options);
    assert_int_equal(world_submit(&other, &specs[id], NULL), STATUS_OK);
    world_run(&other, 10000);
    assert_int_equal(other.requests[id].n_tokens, r->n_tokens);
    assert_memory_equal(other.requests[id].tokens, r->tokens,
                        sizeof(int32_t) * (size_t)r->n_tokens);
    assert_int_equal(other.requests[id].finish, r->finish);
    world_fini(&other);
}

static void run_seed(uint64_t seed)
{
    random_state = seed * 77777;
    texts = roll(3) == 0;
    struct scheduler_options options = random_options();
    world_init(&world, &options);
    uint64_t next_id = 1;
    for (int i = 0; i < EVENTS; i++)
        one_event(&next_id);
    world_run(&world, STILL_MAX);
    struct scheduler_figures figures;
    scheduler_figures(world.scheduler, world.now, &figures);
    assert_int_equal(figures.n_running + figures.n_queued + figures.n_in_flight, 0);
    assert_int_equal(figures.kv_blocks_used, 0);
    assert_int_equal(world.stages.blocks_used, 0);
    assert_int_equal(world.stages.n_sequences, 0);
    for (uint64_t id = 1; id < next_id; id++) {
        assert_int_equal(world.requests[id].ended, world.requests[id].submitted);
        check_tokens(id, &options);
    }
    assert_int_equal(figures.finished + figures.failed + figures.canceled, figures.submitted);
    world_fini(&world);
}

static void test_random_events(void **state)
{
    (void)state;
    for (uint64_t seed = first_seed; seed < first_seed + n_seeds; seed++) {
        fprintf(stderr, "seed %llu\r", (unsigned long long)seed);
        run_seed(seed);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        first_seed = strtoull(argv[1], NULL, 10);
        n_seeds = strtoull(argv[2], NULL, 10);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_events)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
