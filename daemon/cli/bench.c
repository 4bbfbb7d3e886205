/*
 * bench.c - `mgpt bench`: a load on a daemon (--url) or on workers of our own (--local), one run
 * for each concurrency of the list, with the machine's limits measured before and after.
 */
#include "daemon/cli/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"

enum { PLACES_LEAST = 2 }; /* so that a run with one request open is more than a few pictures */

struct bench {
    struct bench_settings settings;
    struct bench_mix mix;
    int n_levels, concurrency[BENCH_LEVELS_MAX]; /* one level for an open loop */
    struct bench_target *target;
    struct bench_machine machine;
    int n_runs;
    struct bench_run runs[BENCH_LEVELS_MAX];
    struct bench_result results[BENCH_LEVELS_MAX];
};

/* ---- wrong use ---- */

static enum status read_levels(struct bench *bench, struct error *err)
{
    const char *at = bench->settings.concurrency;
    for (;;) {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || errno || value < 1 || value > BENCH_IN_FLIGHT_MAX || (*end != ',' && *end))
            return error_set(err, STATUS_INVALID,
                             "--concurrency wants numbers from 1 to %d with commas, got '%s'",
                             BENCH_IN_FLIGHT_MAX, bench->settings.concurrency);
        if (bench->n_levels == BENCH_LEVELS_MAX)
            return error_set(err, STATUS_INVALID, "--concurrency: more than %d numbers",
                             BENCH_LEVELS_MAX);
        bench->concurrency[bench->n_levels++] = (int)value;
        if (!*end)
            return STATUS_OK;
        at = end + 1;
    }
}

static enum status check_use(struct bench *bench, struct error *err)
{
    const struct bench_settings *settings = &bench->settings;
    if (settings->concurrency && settings->rate > 0)
        return error_set(err, STATUS_INVALID, "--concurrency and --rate exclude each other");
    if (settings->mix && settings->base.size.width > 0)
        return error_set(err, STATUS_INVALID, "--size and --mix exclude each other");
    if (settings->base.url && settings->base.local)
        return error_set(err, STATUS_INVALID, "--url and --local exclude each other");
    if (settings->no_pixels && !settings->base.local)
        return error_set(err, STATUS_INVALID, "--no-pixels needs --local");
    if (settings->rate > 0) {
        bench->n_levels = 1;
        return STATUS_OK;
    }
    if (!settings->concurrency)
        bench->settings.concurrency = "4";
    return read_levels(bench, err);
}

/* ---- runs ---- */

static enum status prepare_mix(struct bench *bench, struct error *err)
{
    const struct option_size *size = &bench->settings.base.size;
    if (bench->settings.mix)
        return bench_mix_read(&bench->mix, bench->settings.mix, err);
    bench->mix.n = 1;
    bench->mix.sizes[0].share = 1;
    bench->mix.sizes[0].size =
        (struct picture_size){size->width ? size->width : 256, size->width ? size->height : 256};
    return STATUS_OK;
}

static enum status open_target(struct bench *bench, struct error *err)
{
    int most = BENCH_IN_FLIGHT_MAX;
    if (bench->settings.base.local)
        return bench_local_open(&bench->target, &bench->settings, most, err);
    if (!bench->settings.base.url)
        bench->settings.base.url = "http://127.0.0.1:8086";
    return bench_http_open(&bench->target, &bench->settings, err);
}

/* Pictures that nobody counts: memory is touched, the scheduler learns the times of steps. A
 * failure here would come in every run, so it ends the bench. */
static enum status warm_up(struct bench *bench, struct error *err)
{
    struct bench_run run;
    struct bench_load load = {.n_requests = bench->settings.n_warm,
                              .concurrency = bench->settings.n_warm,
                              .seed = bench->settings.base.seed,
                              .mix = &bench->mix};
    if (load.n_requests == 0)
        return STATUS_OK;
    enum status st = bench_load_run(&run, bench->target, &load, err);
    if (st == STATUS_OK && run.n_failed == load.n_requests)
        st = error_set(err, STATUS_IO, "warming up: %s", run.failure);
    bench_run_fini(&run);
    return st;
}

static int choose_requests(const struct bench *bench, int level)
{
    if (bench->settings.n_requests > 0)
        return bench->settings.n_requests;
    int places =
        bench->concurrency[level] > PLACES_LEAST ? bench->concurrency[level] : PLACES_LEAST;
    return bench->settings.turns * places;
}

static enum status run_level(struct bench *bench, int level, struct error *err)
{
    struct bench_load load = {.n_requests = choose_requests(bench, level),
                              .concurrency = bench->concurrency[level],
                              .rate = bench->settings.rate,
                              .seed = bench->settings.base.seed,
                              .mix = &bench->mix};
    struct bench_run *run = &bench->runs[bench->n_runs++];
    enum status st = bench_load_run(run, bench->target, &load, err);
    if (st == STATUS_OK)
        bench_result_make(&bench->results[level], run, bench->target, bench->settings.deadline_s);
    return st;
}

/* What mgpt-worker measures is this machine's processor. */
static enum status measure(struct bench *bench, struct error *err)
{
    const struct settings *base = &bench->settings.base;
    bool here = base->local ? strcmp(base->device, "cpu") == 0 : bench->target->here;
    return here ? bench_machine_measure(&bench->machine, err) : STATUS_OK;
}

static enum status run_all(struct bench *bench, struct error *err)
{
    bench_machine_describe(&bench->machine);
    enum status st = prepare_mix(bench, err);
    /* Our own workers are not there yet: nothing disturbs the measurement. */
    if (st == STATUS_OK && bench->settings.base.local)
        st = measure(bench, err);
    if (st == STATUS_OK)
        st = open_target(bench, err);
    if (st == STATUS_OK && !bench->settings.base.local)
        st = measure(bench, err);
    if (st == STATUS_OK)
        st = warm_up(bench, err);
    /* Between levels too: there are seconds in which a virtual machine's CPUs give half. */
    for (int level = 0; st == STATUS_OK && level < bench->n_levels; level++) {
        st = run_level(bench, level, err);
        if (st == STATUS_OK)
            st = measure(bench, err);
    }
    for (int i = 0; st == STATUS_OK && i < bench->n_levels; i++)
        bench_result_limit(&bench->results[i], &bench->runs[i], bench->target, &bench->machine);
    return st;
}

static enum status report(const struct bench *bench, struct error *err)
{
    enum status st = STATUS_OK;
    if (bench->settings.json)
        st = session_print_json(bench_report_json(&bench->settings, bench->target, &bench->machine,
                                                  bench->results, bench->n_levels),
                                err);
    else
        bench_report_table(bench->target, &bench->machine, bench->results, bench->n_levels);
    if (st == STATUS_OK && bench->settings.chart)
        st = bench_chart_write(bench->settings.chart, bench->target, &bench->machine,
                               bench->results, bench->n_levels, err);
    for (int i = 0; st == STATUS_OK && i < bench->n_levels; i++)
        if (bench->results[i].n_failed > 0)
            st = error_set(err, STATUS_IO, "%d of %d requests failed; the first: %s",
                           bench->results[i].n_failed, bench->results[i].load.n_requests,
                           bench->results[i].failure);
    return st;
}

static int end(struct bench *bench, enum status st, const struct error *err)
{
    for (int i = 0; i < bench->n_runs; i++)
        bench_run_fini(&bench->runs[i]);
    if (bench->target)
        bench->target->close(bench->target);
    free(bench);
    if (st == STATUS_OK)
        return 0;
    fprintf(stderr, "mgpt: %s\n", err->text);
    return 1;
}

#define BENCH(field) offsetof(struct bench_settings, field)

static int start(struct bench *bench, int argc, char **argv)
{
    static const struct option table[] = {
        {"requests", "N", OPTION_INT, BENCH(n_requests), .min = 1, .max = BENCH_REQUESTS_MAX,
         .help = "of each run [the turns of as many places as are open, two at least]",
         .heading = "Load"},
        {"turns", "N", OPTION_INT, BENCH(turns), .default_value = "6", .min = 1, .max = 1000,
         .help = "without --requests: pictures in turn at each place"},
        {"concurrency", "C[,C..]", OPTION_TEXT, BENCH(concurrency),
         .help = "closed loop: so many requests are always open; a run for each number [4]"},
        {"rate", "R", OPTION_FLOAT, BENCH(rate), .min = 0.001, .max = 1e6,
         .help = "open loop: Poisson arrivals, requests a minute"},
        {"size", "WxH", OPTION_SIZE, SETTING(size), .help = "of all pictures [256x256]"},
        {"mix", "FILE", OPTION_TEXT, BENCH(mix), .help = "lines 'WxH SHARE': sizes drawn by share"},
        {"deadline-s", "S", OPTION_FLOAT, BENCH(deadline_s), .default_value = "60", .min = 0.001,
         .max = 1e6, .help = "goodput counts what is done within it"},
        {"warm", "N", OPTION_INT, BENCH(n_warm), .default_value = "1", .min = 0,
         .max = BENCH_IN_FLIGHT_MAX, .help = "pictures before the first run, not counted"},
        {"seed", "N", OPTION_U64, SETTING(seed), .default_value = "1",
         .help = "of arrivals, sizes and pictures"},
        {"guidance", "G", OPTION_FLOAT, SETTING(guidance), .max = 1000,
         .help = "1: none [the model's default]"},
        {"json", NULL, OPTION_FLAG, BENCH(json), .help = "one object on stdout, not a table",
         .heading = "Report"},
        {"chart", "FILE.svg", OPTION_TEXT, BENCH(chart),
         .help = "images/min and times against concurrency"},
        {"url", "URL", OPTION_TEXT, SETTING(url), .help = "of the daemon [http://127.0.0.1:8086]",
         .heading = "Who does it"},
        {"local", "DIR", OPTION_TEXT, SETTING(local),
         .help = "no daemon: a checkpoint folder, workers of our own"},
        {"no-pixels", NULL, OPTION_FLAG, BENCH(no_pixels),
         .help = "with --local: tokens only, no picture worker"},
        {"compute", "TYPE", OPTION_CHOICE, SETTING(compute), .choices = settings_computes,
         .default_value = "bf16", .help = "number format, with --local"},
        ROWS_STAGES,
        ROW_VQ,
        ROW_DEVICE,
        ROW_THREADS,
        ROW_KV_BLOCKS("with --local: as mgptd takes"),
        {0}};
    static const struct option_set set = {
        .program = "mgpt bench",
        .about = "Loads a server with picture requests and says what it does beside what the "
                 "machine allows.",
        .options = table,
        .example = "mgpt bench --local ./model --stages 2 --size 128x128 --concurrency 1,4,24 "
                   "--chart bench.svg"};
    struct error err;
    int outcome = settings_start(&bench->settings.base, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    if (check_use(bench, &err) == STATUS_OK)
        return -1;
    fprintf(stderr, "mgpt bench: %s\n", err.text);
    return 2;
}

int command_bench(int argc, char **argv)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    struct error err;
    if (!bench) {
        fprintf(stderr, "mgpt: cannot allocate a bench\n");
        return 1;
    }
    int outcome = start(bench, argc, argv);
    if (outcome >= 0) {
        free(bench);
        return outcome;
    }
    enum status st = run_all(bench, &err);
    if (st == STATUS_OK)
        st = report(bench, &err);
    return end(bench, st, &err);
}
