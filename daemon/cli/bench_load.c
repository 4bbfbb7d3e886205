/*
 * bench_load.c - a closed loop (so many requests are always open) or an open one (Poisson arrivals,
 * whether the server keeps up or not), and a record of each request.
 *
 * Sizes and arrivals are a function of the seed, so that two servers can be given the same load.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/philox.h"
#include "daemon/cli/bench.h"
#include "daemon/cli/commands.h"

enum { LOOK_MS = 200 };

enum { PROMPT_BYTES = 256 };

/* Short and long ones, as people write them; each request puts its number before one, so that none
 * are equal. */
static const char *const prompts[BENCH_PROMPTS] = {
    "a red fox in the snow",
    "A quiet harbour at dawn, fishing boats, mist over the water, soft light",
    "portrait of an old sailor, oil on canvas",
    ("An astronaut rides a horse over the dunes of Mars while two moons rise behind the mountains; "
     "the horse's hooves throw up red dust that hangs in the thin air"),
    "a bowl of cherries",
    "Isometric drawing of a small Japanese noodle shop at night, lanterns, rain on the street",
    "macro photograph of a dragonfly on a reed, early morning, drops of dew",
    "the skyline of a city built of glass and moss"};

/* ---- the mix ---- */

static enum status read_line(struct bench_mix *mix, char *line, struct error *err)
{
    char size[32];
    double share = 1;
    char *comment = strchr(line, '#');
    if (comment)
        *comment = 0;
    int n_chars = 0, n = sscanf(line, "%31s %lf %n", size, &share, &n_chars);
    if (n < 1)
        return STATUS_OK;
    if (n == 1) /* the size alone: what follows it must be blank */
        sscanf(line, " %*s %n", &n_chars);
    if (line[n_chars] || !(share > 0) || share > 1e9)
        return error_set(err, STATUS_INVALID, "expected WxH and a share above 0");
    if (mix->n == BENCH_SIZES_MAX)
        return error_set(err, STATUS_INVALID, "more than %d sizes", BENCH_SIZES_MAX);
    mix->sizes[mix->n].share = share;
    return sizes_parse(&mix->sizes[mix->n++].size, size, err);
}

enum status bench_mix_read(struct bench_mix *out, const char *path, struct error *err)
{
    char line[256];
    int number = 0;
    enum status st = STATUS_OK;
    FILE *file = fopen(path, "re");
    if (!file)
        return error_set_errno(err, STATUS_IO, errno, "cannot open '%s'", path);
    while (st == STATUS_OK && fgets(line, sizeof(line), file)) {
        number++;
        if (strlen(line) == sizeof(line) - 1)
            st = error_set(err, STATUS_INVALID, "longer than %zu bytes", sizeof(line) - 2);
        else
            st = read_line(out, line, err);
    }
    fclose(file);
    if (st != STATUS_OK)
        return error_wrap(err, st, "'%s' line %d", path, number);
    return out->n > 0 ? STATUS_OK : error_set(err, STATUS_INVALID, "'%s' has no sizes", path);
}

/* ---- what is sent when ---- */

/* In (0, 1). */
static double uniform(uint32_t word)
{
    return ((double)word + 0.5) * 0x1p-32;
}

static struct picture_size choose_size(const struct bench_mix *mix, double at)
{
    double sum = 0;
    for (int i = 0; i < mix->n; i++)
        sum += mix->sizes[i].share;
    int chosen = 0;
    for (double left = at * sum; chosen + 1 < mix->n && left >= mix->sizes[chosen].share; chosen++)
        left -= mix->sizes[chosen].share;
    return mix->sizes[chosen].size;
}

static void plan_records(struct bench_run *run, int64_t start_ns)
{
    const struct bench_load *load = &run->load;
    uint32_t key[2] = {(uint32_t)load->seed, (uint32_t)(load->seed >> 32)};
    double at_s = 0;
    for (int i = 0; i < load->n_requests; i++) {
        uint32_t counter[4] = {(uint32_t)i, 0, 0, 0}, words[4];
        philox4x32(words, counter, key);
        run->records[i].size = choose_size(load->mix, uniform(words[0]));
        run->records[i].due_ns = start_ns + (int64_t)(at_s * 1e9);
        if (load->rate > 0)
            at_s -= log(uniform(words[1])) * 60 / load->rate;
    }
}

/* ---- the loop ---- */

struct progress {
    int n_sent, n_ended;
};

static bool may_send(const struct bench_run *run, const struct progress *at, int64_t now_ns)
{
    int n_open = at->n_sent - at->n_ended;
    if (at->n_sent == run->load.n_requests)
        return false;
    if (run->load.rate > 0)
        return n_open < BENCH_IN_FLIGHT_MAX && run->records[at->n_sent].due_ns <= now_ns;
    return n_open < run->load.concurrency;
}

static void end_record(struct bench_run *run, struct progress *at, int tag, const char *failure)
{
    struct bench_record *record = &run->records[tag];
    record->end_ns = clock_monotonic_ns();
    run->end_ns = record->end_ns;
    at->n_ended++;
    if (!failure)
        return;
    record->failed = true;
    if (run->n_failed++ == 0)
        snprintf(run->failure, sizeof(run->failure), "%.*s", BENCH_ERROR_BYTES - 1, failure);
}

static void send_one(struct bench_run *run, struct bench_target *target, struct progress *at)
{
    int tag = at->n_sent++;
    struct error err;
    char prompt[PROMPT_BYTES];
    snprintf(prompt, sizeof(prompt), "%d. %s", tag + 1, prompts[tag % BENCH_PROMPTS]);
    struct bench_order order = {.tag = tag,
                                .size = run->records[tag].size,
                                .prompt = prompt,
                                .seed = run->load.seed + (uint64_t)tag};
    if (run->load.rate <= 0)
        run->records[tag].due_ns = clock_monotonic_ns();
    if (target->submit(target, &order, &err) != STATUS_OK)
        end_record(run, at, tag, err.text);
}

static int wait_ms(const struct bench_run *run, const struct progress *at)
{
    if (run->load.rate <= 0 || at->n_sent == run->load.n_requests)
        return LOOK_MS;
    int64_t left_ms = (run->records[at->n_sent].due_ns - clock_monotonic_ns()) / 1000000;
    return left_ms < 0 ? 0 : left_ms < LOOK_MS ? (int)left_ms : LOOK_MS;
}

static void take_event(struct bench_run *run, struct progress *at, const struct bench_event *event)
{
    struct bench_record *record = &run->records[event->tag];
    if (event->kind == BENCH_NOTHING)
        return;
    if (!record->row_ns && event->kind != BENCH_FAILED)
        record->row_ns = clock_monotonic_ns();
    if (event->kind == BENCH_ROW)
        return;
    record->n_prompt = event->n_prompt;
    end_record(run, at, event->tag, event->kind == BENCH_FAILED ? event->text : NULL);
}

enum status bench_load_run(struct bench_run *run, struct bench_target *target,
                           const struct bench_load *load, struct error *err)
{
    struct progress at = {0};
    memset(run, 0, sizeof(*run));
    run->load = *load;
    run->records = calloc((size_t)load->n_requests, sizeof(*run->records));
    if (!run->records)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d records", load->n_requests);
    enum status st = target->figures(target, &run->before, err);
    run->start_ns = clock_monotonic_ns();
    plan_records(run, run->start_ns);
    while (st == STATUS_OK && at.n_ended < load->n_requests) {
        struct bench_event event = {0};
        if (!command_goes_on(NULL))
            return error_set(err, STATUS_CANCELED, "interrupted");
        while (may_send(run, &at, clock_monotonic_ns()))
            send_one(run, target, &at);
        if (at.n_ended == load->n_requests)
            break;
        st = target->next(target, wait_ms(run, &at), &event, err);
        if (st == STATUS_OK)
            take_event(run, &at, &event);
    }
    return st == STATUS_OK ? target->figures(target, &run->after, err) : st;
}

void bench_run_fini(struct bench_run *run)
{
    free(run->records);
    memset(run, 0, sizeof(*run));
}
