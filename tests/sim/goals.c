/*
 * goals.c - promised figures, as cases; see goals.h. A stage holds a quarter of a 7B model in bf16
 * on a device with 2 TB/s and 280 TFLOP/s: its weights (3.25 GB) are read in 1.6 ms, a position of
 * its cache (128 KiB) in 64 ns, and the products of a token take 11.6 us.
 */
#include "tests/sim/goals.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/report.h"

struct goal {
    const char *name;
    double busy_share;     /* U at least */
    double images_per_min; /* at least; 0 = not asked */
    bool against_fixed;    /* and tokens/s as good as with the best given number of micro-batches */
    void (*set)(struct sim_options *o);
};

static void seven_b(struct sim_options *o, int n_stages)
{
    sim_options_init(o);
    o->n_stages = n_stages;
    o->fixed_us = 60;
    o->weight_us = 1600;
    o->token_us = 11.6;
    o->context_us = 0.064;
    o->hop_us = 30;
    o->turn_us = 150;
    o->jitter = 0.02;
    o->arrivals = SIM_CLOSED;
    o->concurrency = 8 * n_stages;
    o->warm_s = 1.1 * (n_stages + 1) * 1056 * 0.0023; /* about a picture's time */
    o->seconds = 0.6 * o->warm_s;
}

static void equal_2(struct sim_options *o)
{
    seven_b(o, 2);
}
static void equal_4(struct sim_options *o)
{
    seven_b(o, 4);
}
static void equal_8(struct sim_options *o)
{
    seven_b(o, 8);
}
static void equal_16(struct sim_options *o)
{
    seven_b(o, 16);
}
static void equal_64(struct sim_options *o)
{
    seven_b(o, 64);
    o->concurrency = 4 * o->n_stages;
    o->sizes[0] = (struct sim_size){256, 256, 1};
    o->warm_s /= 4;
    o->seconds = 0.5 * o->warm_s;
}

static void mix(struct sim_options *o)
{
    o->n_sizes = 3;
    o->sizes[0] = (struct sim_size){512, 512, 1};
    o->sizes[1] = (struct sim_size){768, 768, 1};
    o->sizes[2] = (struct sim_size){1024, 1024, 1};
    o->warm_s *= 3;
    o->seconds = 1.5 * o->warm_s;
}
static void mixed_2(struct sim_options *o)
{
    seven_b(o, 2);
    mix(o);
}
static void mixed_4(struct sim_options *o)
{
    seven_b(o, 4);
    mix(o);
}
static void mixed_8(struct sim_options *o)
{
    seven_b(o, 8);
    mix(o);
}
/* Room for about half of what wants to run: admission by the curves decides. */
static void mixed_scarce(struct sim_options *o)
{
    seven_b(o, 4);
    mix(o);
    o->kv_blocks = 16 * 85;
}
/* Room for 20 that start together, for nearly twice as many whose starts are spread. */
static void scarce(struct sim_options *o)
{
    seven_b(o, 4);
    o->concurrency = 60;
    o->kv_blocks = 700;
    o->warm_s = 100;
    o->seconds = 100;
}
static void burst(struct sim_options *o)
{
    seven_b(o, 4);
    o->arrivals = SIM_BURST;
    o->n_requests = 64;
}
static void poisson(struct sim_options *o)
{
    seven_b(o, 4);
    o->arrivals = SIM_POISSON;
    o->n_requests = 200;
    o->rate = 100;
}
/* Long prompts with pictures in them, all the time. */
static void prompts(struct sim_options *o)
{
    seven_b(o, 4);
    o->prompt_tokens = 1200;
}
/* The last stage takes a third longer: the others cannot be busy all the time, but it can. */
static void uneven(struct sim_options *o)
{
    seven_b(o, 4);
    o->speeds[3] = 0.75;
}
static void slow_links(struct sim_options *o)
{
    seven_b(o, 4);
    o->hop_us = 700;
    o->turn_us = 2000;
}
/* The demo model on two CPU cores: products bind from few rows on. */
static void cpu_2(struct sim_options *o)
{
    sim_options_init(o);
    o->n_stages = 2;
    o->fixed_us = 150;
    o->weight_us = 900;
    o->token_us = 180;
    o->context_us = 0.4;
    o->hop_us = 120;
    o->turn_us = 400;
    o->jitter = 0.1;
    o->arrivals = SIM_CLOSED;
    o->concurrency = 24;
    o->sizes[0] = (struct sim_size){128, 128, 1};
    o->warm_s = 5;
    o->seconds = 20;
}

static void cpu_burst(struct sim_options *o)
{
    cpu_2(o);
    o->arrivals = SIM_BURST;
    o->n_requests = 24;
}
/* As `./run bench` has it: the two before are not counted. */
static void warm_burst(struct sim_options *o)
{
    cpu_burst(o);
    o->n_warm = 2;
}
/* Four times slower than a scheduler that has measured nothing supposes. */
static void cold_burst(struct sim_options *o)
{
    cpu_burst(o);
    o->weight_us = 20000;
    o->token_us = 700;
    o->context_us = 8;
    o->template_tokens = 33;
    o->prompt_tokens = 28;
}

static const struct goal goals[] = {
    {"2 equal stages, 512x512", 0.95, 0, true, equal_2},
    {"4 equal stages", 0.95, 0, false, equal_4},
    {"8 equal stages", 0.95, 0, false, equal_8},
    {"16 equal stages", 0.95, 0, false, equal_16},
    {"64 equal stages, 256x256", 0.95, 0, false, equal_64},
    {"2 stages, 512 + 768 + 1024", 0.90, 0, false, mixed_2},
    {"4 stages, 512 + 768 + 1024", 0.90, 0, false, mixed_4},
    {"8 stages, 512 + 768 + 1024", 0.90, 0, false, mixed_8},
    {"4 stages, mixed, scarce cache", 0.90, 0, false, mixed_scarce},
    {"4 stages, 60 at once, scarce cache", 0.95, 180, false, scarce},
    {"4 stages, burst of 64", 0.90, 0, false, burst},
    {"4 stages, poisson 100/min", 0.50, 0, false, poisson},
    {"4 stages, prompts of 1200", 0.90, 0, false, prompts},
    {"4 stages, one a third slower", 0.70, 0, true, uneven},
    {"4 stages, slow links", 0.80, 0, true, slow_links},
    {"2 CPU stages, 24 of 128x128", 0.95, 0, true, cpu_2},
    {"2 CPU stages, burst of 24 after 2", 0.90, 0, false, warm_burst},
    {"2 slow CPU stages, burst of 24 at once", 0.90, 228, false, cold_burst},
};

/* The automatic number of micro-batches against given ones. Returns 1 when one of those is better
 * by more than noise. */
static int check_against_fixed(const struct sim_options *options, double tokens_per_s)
{
    static const double FIXED_SHARE = 0.95;
    int n = options->n_stages, n_broken = 0;
    const int tried[] = {n - 1, n, n + 1, n + 2, 2 * n};
    for (size_t i = 0; i < sizeof(tried) / sizeof(tried[0]); i++) {
        struct sim_options fixed = *options;
        struct sim_result result;
        fixed.micro_batches = tried[i];
        if (tried[i] < 1 || sim_run(&fixed, &result, NULL) != STATUS_OK)
            continue;
        if (tokens_per_s < FIXED_SHARE * result.tokens_per_s) {
            printf("    broken: %.0f tokens/s, %d micro-batches make %.0f\n", tokens_per_s,
                   tried[i], result.tokens_per_s);
            n_broken = 1;
        }
    }
    return n_broken;
}

static int run_goal(const struct goal *goal)
{
    struct sim_options options;
    struct sim_result result;
    struct error err;
    goal->set(&options);
    if (sim_run(&options, &result, &err) != STATUS_OK) {
        printf("%s: %s\n", goal->name, err.text);
        return 1;
    }
    report_line(goal->name, &options, &result);
    int n_broken = 0;
    if (result.busy_share < goal->busy_share) {
        printf("    broken: U is %.3f, promised %.2f\n", result.busy_share, goal->busy_share);
        n_broken++;
    }
    if (result.images_per_min < goal->images_per_min) {
        printf("    broken: %.1f images/min, promised %.1f\n", result.images_per_min,
               goal->images_per_min);
        n_broken++;
    }
    if (options.arrivals == SIM_BURST && result.n_finished != options.n_requests) {
        printf("    broken: %d counted of a burst of %d\n", result.n_finished, options.n_requests);
        n_broken++;
    }
    if (goal->against_fixed)
        n_broken += check_against_fixed(&options, result.tokens_per_s);
    return n_broken;
}

int goals_run(void)
{
    int n_broken = 0;
    report_head();
    for (size_t i = 0; i < sizeof(goals) / sizeof(goals[0]); i++)
        n_broken += run_goal(&goals[i]);
    return n_broken;
}
