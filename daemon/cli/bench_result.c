/*
 * bench_result.c - figures of a run, and what the machine would have allowed.
 *
 * The limit counts what a perfect program cannot avoid: weights of the layers once a plan, outputs
 * of the head for codes, keys and values of the context; products of every row. Norms, rotary,
 * sampling and the codec count as nothing.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/bench.h"

enum { PATCH_PIXELS = 16, OPENING_TOKENS = 3 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nearest rank; sorts. Of no values: 0. */
static void percentiles(double out[BENCH_PERCENTILES], double *values, int n)
{
    static const double shares[BENCH_PERCENTILES] = {0.50, 0.95, 0.99};
    memset(out, 0, BENCH_PERCENTILES * sizeof(*out));
    if (n > 0)
        qsort(values, (size_t)n, sizeof(*values), by_size);
    for (int i = 0; n > 0 && i < BENCH_PERCENTILES; i++) {
        int rank = (int)ceil(shares[i] * n);
        out[i] = values[rank > 0 ? rank - 1 : 0];
    }
}

static double n_codes(const struct bench_record *record)
{
    return (double)(record->size.width / PATCH_PIXELS) * (record->size.height / PATCH_PIXELS);
}

/* Codes, new lines and the picture's end: what is generated after the opening. */
static double n_generated(const struct bench_record *record)
{
    return n_codes(record) + (double)record->size.height / PATCH_PIXELS + 1;
}

static double seconds(int64_t from_ns, int64_t to_ns)
{
    return (double)(to_ns - from_ns) * 1e-9;
}

static void fill_times(struct bench_result *out, const struct bench_run *run)
{
    int n = 0, n_in_time = 0;
    double tokens = 0;
    double *rows = calloc((size_t)run->load.n_requests, sizeof(*rows)),
           *whole = calloc((size_t)run->load.n_requests, sizeof(*whole));
    for (int i = 0; rows && whole && i < run->load.n_requests; i++) {
        const struct bench_record *record = &run->records[i];
        if (record->failed)
            continue;
        rows[n] = seconds(record->due_ns, record->row_ns);
        whole[n] = seconds(record->due_ns, record->end_ns);
        n_in_time += whole[n] <= out->deadline_s;
        tokens += n_generated(record);
        out->prompt_tokens += record->n_prompt;
        n++;
    }
    if (rows && whole) {
        percentiles(out->first_row_s, rows, n);
        percentiles(out->image_s, whole, n);
    }
    free(rows);
    free(whole);
    if (n > 0)
        out->prompt_tokens /= n;
    if (out->wall_s <= 0)
        return;
    out->images_per_min = n * 60 / out->wall_s;
    out->goodput_per_min = n_in_time * 60 / out->wall_s;
    out->tokens_per_s = tokens / out->wall_s;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void fill_counters(struct bench_result *out, const struct bench_run *run)
{
    const struct bench_figures *before = &run->before, *after = &run->after;
    double plans = after->plans - before->plans, useful_s = after->useful_s - before->useful_s;
    double stages_each = ratio(after->n_stages, after->n_pipelines);
    out->n_stages = after->n_stages < BENCH_STAGES_MAX ? after->n_stages : BENCH_STAGES_MAX;
    out->rows_per_read = ratio(after->rows - before->rows, plans);
    out->hop_bytes = ratio(after->link_bytes - before->link_bytes, plans * (stages_each - 1));
    out->busy_share = ratio(useful_s, after->n_stages * out->wall_s);
    out->busy_share_active = ratio(useful_s, stages_each * (after->active_s - before->active_s));
    out->codec_busy_s = after->codec_busy_s - before->codec_busy_s;
    for (int i = 0; i < out->n_stages; i++) {
        out->stages[i] = after->stages[i];
        out->stages[i].busy_s -= before->stages[i].busy_s;
        out->stages[i].wait_s -= before->stages[i].wait_s;
    }
}

void bench_result_make(struct bench_result *out, const struct bench_run *run,
                       const struct bench_target *target, double deadline_s)
{
    (void)target;
    memset(out, 0, sizeof(*out));
    out->load = run->load;
    out->n_failed = run->n_failed;
    out->deadline_s = deadline_s;
    memcpy(out->failure, run->failure, sizeof(out->failure));
    out->wall_s = seconds(run->start_ns, run->end_ns);
    fill_times(out, run);
    fill_counters(out, run);
}

/* ---- limits ---- */

struct work {
    double draws, draw_rows, context; /* sums over pictures: codes; their rows; positions read */
};

static struct work sum_work(const struct bench_run *run, double guidance)
{
    struct work work = {0};
    for (int i = 0; i < run->load.n_requests; i++) {
        const struct bench_record *record = &run->records[i];
        double draws = n_codes(record), half = n_generated(record) / 2;
        if (record->failed)
            continue;
        work.draws += draws;
        work.draw_rows += guidance == 1 ? draws : 2 * draws;
        work.context += draws * (record->n_prompt + half);
        work.context += guidance == 1 ? 0 : draws * (OPENING_TOKENS + half);
    }
    return work;
}

void bench_result_limit(struct bench_result *result, const struct bench_run *run,
                        const struct bench_target *target, const struct bench_machine *machine)
{
    const struct model_config *c = &target->config;
    const struct bench_limit *best = bench_machine_best(machine);
    int n_done = run->load.n_requests - run->n_failed;
    if (c->n_layers == 0 || n_done == 0)
        return;
    struct work work = sum_work(run, target->guidance);
    double layers = (double)c->n_layers * c->hidden *
                    ((2.0 * c->n_heads + 2.0 * c->n_kv_heads) * c->head_dim + 3.0 * c->inter);
    double head = (double)target->code_rows * c->hidden;
    double keys = 2.0 * c->n_layers * c->n_kv_heads * c->head_dim; /* of a position, and values */
    double plans = run->after.plans - run->before.plans, rows = run->after.rows - run->before.rows;
    double context_bytes = target->item_bytes * keys * work.context;
    double read_bytes = target->item_bytes * (layers + head);
    result->read_bytes = read_bytes * plans + context_bytes;
    result->operations = 2 * layers * rows + 2 * head * work.draw_rows +
                         4.0 * c->n_layers * c->n_heads * c->head_dim * work.context;
    if (!best || !target->here)
        return;
    double dense_s = result->operations / best->dense_flop_s;
    result->limit_s = fmax(result->read_bytes / best->read_bytes_s, dense_s);
    /* All requests that are open at once could share one read a token. */
    double sharing =
        run->load.rate > 0 || run->load.concurrency > n_done ? n_done : run->load.concurrency;
    double least_bytes = read_bytes * work.draws / sharing + context_bytes;
    double best_s = fmax(least_bytes / best->read_bytes_s, dense_s);
    double mean_s =
        fmax(least_bytes / best->read_mean_bytes_s, result->operations / best->dense_mean_flop_s);
    result->images_per_min_limit = n_done * 60 / best_s;
    result->of_limit = ratio(result->images_per_min, result->images_per_min_limit);
    result->of_mean_limit = ratio(result->images_per_min, n_done * 60 / mean_s);
}
