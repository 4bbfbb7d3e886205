/*
 * scheduler_bench.c - CPU time of the scheduler for a plan: forming it and taking in its answer and
 * times.
 *
 * Usage: scheduler_bench [ROWS [STAGES]]      default: 64 rows (32 guided pictures of 768x768 in
 * one slot), then more
 */
#include <stdio.h>

#include "base/clock.h"
#include "scheduler/fake_stages.h"

static struct fake_vocabulary vocabulary;

static void fail(const char *what)
{
    fprintf(stderr, "scheduler_bench: %s\n", what);
    exit(1);
}

static void run(int n_rows, int n_stages)
{
    enum {
        ROUNDS = 2000,
        PROMPT = 64
    }; /* of the 2,304 a picture has; the second half is measured */
    struct scheduler_options options;
    struct scheduler *s;
    scheduler_options_init(&options);
    options.vocabulary = &vocabulary.vocabulary;
    options.n_stages = n_stages;
    options.kv_blocks = 1 << 20;
    options.max_positions = 4096;
    options.micro_batches = n_stages > 1 ? n_stages + 1 : 1;
    options.running_max = n_rows / 2 * options.micro_batches;
    options.queue_max = options.running_max;
    if (scheduler_create(&s, &options, NULL) != STATUS_OK)
        fail("cannot create a scheduler");
    int32_t prompt[PROMPT + 4];
    for (int i = 0; i < options.running_max; i++) {
        struct scheduler_request r = {
            .id = (uint64_t)i, .prompt = prompt, .sampling = {.guidance = 4}};
        r.n_prompt = fake_picture_prompt(prompt, PROMPT, 768, 768, (uint32_t)i);
        if (scheduler_submit(s, 1, &r, NULL) != STATUS_OK)
            fail("a request was refused");
    }
    static int32_t tokens[4096];
    for (int i = 0; i < 4096; i++)
        tokens[i] = FAKE_CODE_BASE + i % FAKE_CODES;
    struct {
        uint64_t number;
        int n_draws;
    } flights[SCHEDULER_SLOTS_MAX];
    int n_flights = 0, n_plans = ROUNDS * options.micro_batches;
    int64_t now = 1, rows = 0, spent = 0, most = 0;
    for (int n = 0; n < n_plans; n++, now += 1000000) {
        int64_t start = clock_process_cpu_ns();
        const struct plan *plan;
        while ((plan = scheduler_next_plan(s, now))) {
            flights[n_flights].number = plan->number;
            flights[n_flights++].n_draws = plan->n_draws;
            rows += n >= n_plans / 2 ? plan->n_rows : 0;
        }
        for (int stage = 0; stage < n_stages; stage++)
            scheduler_measure(s, now, flights[0].number, stage, 5000000);
        struct plan_result result = {flights[0].number, flights[0].n_draws, tokens, 0, NULL};
        if (scheduler_complete(s, now, &result, NULL) != STATUS_OK)
            fail("an answer was refused");
        for (int i = 0; i + 1 < n_flights; i++)
            flights[i] = flights[i + 1];
        n_flights--;
        struct scheduler_event event;
        while (scheduler_next_event(s, &event))
            ;
        int64_t took = clock_process_cpu_ns() - start;
        spent += n >= n_plans / 2 ? took : 0;
        most = n >= n_plans / 2 && took > most ? took : most;
        if (n == n_plans / 2)
            spent = rows = most = 0;
    }
    struct scheduler_figures figures;
    scheduler_figures(s, now, &figures);
    double plans = (double)rows / n_rows;
    printf("%6d %7d %9d %12.2f %12.1f\n", n_rows, n_stages, figures.n_running,
           (double)spent / plans / 1e3, (double)most / 1e3);
    scheduler_destroy(s);
}

int main(int argc, char **argv)
{
    fake_vocabulary_init(&vocabulary);
    printf("%6s %7s %9s %12s %12s\n", "rows", "stages", "requests", "us a plan", "most us");
    if (argc > 1) {
        run(atoi(argv[1]), argc > 2 ? atoi(argv[2]) : 1);
        return 0;
    }
    run(2, 1);
    run(16, 2);
    run(64, 1);
    run(64, 2);
    run(64, 8);
    run(256, 2);
    return 0;
}
