/*
 * bench.h - what the parts of `mgpt bench` hand to each other: orders and events of a load,
 * counters of the server, results of a run.
 *
 *     bench.c           options; one run after the other
 *     bench_load.c      the load: who is sent when, and what came back when
 *     bench_local.c     the server: an engine of our own        bench_http.c   ... a daemon
 *     bench_machine.c   the machine and its limits
 *     bench_result.c    records and counters to figures, figures to JSON
 *     bench_table.c     figures to text                          bench_chart.c  ... to SVG
 */
#ifndef MGPT_DAEMON_CLI_BENCH_H
#define MGPT_DAEMON_CLI_BENCH_H

#include <jansson.h>

#include "base/error.h"
#include "daemon/cli/settings.h"
#include "model/config.h"
#include "model/sizes.h"

enum {
    BENCH_REQUESTS_MAX = 100000,
    BENCH_IN_FLIGHT_MAX = 1024, /* requests sent and not ended; a later one waits its turn */
    BENCH_LEVELS_MAX = 16,      /* runs of one command */
    BENCH_SIZES_MAX = 16,       /* lines of a mix */
    BENCH_STAGES_MAX = 128,     /* of all pipelines; more are summed up but not listed */
    BENCH_THREAD_LIMITS_MAX = 16,
    BENCH_TEXT_BYTES = 128,
    BENCH_ERROR_BYTES = 256
};

struct bench_settings {
    struct settings base; /* first: the rows of settings.h write into it */
    int n_requests, turns, n_warm;
    const char *concurrency, *mix, *chart;
    double rate;       /* requests a minute; 0: closed loop */
    double deadline_s; /* of goodput */
    bool json, no_pixels;
};

/* ---- the server under load ---- */

struct bench_order {
    int tag; /* repeated in each event */
    struct picture_size size;
    const char *prompt;
    uint64_t seed;
};

enum bench_event_kind { BENCH_NOTHING, BENCH_ROW, BENCH_FINISHED, BENCH_FAILED };

struct bench_event {
    enum bench_event_kind kind; /* ROW: rows of codes are done; may come several times */
    int tag;
    int n_prompt;                 /* FINISHED: tokens of the prompt */
    char text[BENCH_ERROR_BYTES]; /* FAILED */
};

struct bench_stage {
    int pipeline, stage;
    char units[UNITS_TEXT_BYTES];
    double busy_s, wait_s;
};

/* Counters since the server's start; a run is the difference of two. */
struct bench_figures {
    double plans, rows, useful_s, active_s, codec_busy_s, link_bytes, weight_bytes;
    int n_stages, n_pipelines;
    struct bench_stage stages[BENCH_STAGES_MAX]; /* the first of n_stages */
};

struct bench_target {
    char name[BENCH_TEXT_BYTES];
    struct model_config config; /* the fields that cost; n_layers 0: not known */
    int code_rows;              /* outputs of the head inside a picture */
    int item_bytes;             /* of a weight */
    bool here;                  /* on this machine: its limits are ours */
    double guidance;            /* below 0: the server's default, which is taken to guide */

    enum status (*submit)(struct bench_target *target, const struct bench_order *order,
                          struct error *err);
    /* Waits up to wait_ms. */
    enum status (*next)(struct bench_target *target, int wait_ms, struct bench_event *event,
                        struct error *err);
    enum status (*figures)(struct bench_target *target, struct bench_figures *out,
                           struct error *err);
    void (*close)(struct bench_target *target); /* takes back what still runs */
};

/* Both own *out until out->close(). n_open_max: requests in flight at once. */
enum status bench_local_open(struct bench_target **out, const struct bench_settings *settings,
                             int n_open_max, struct error *err);
enum status bench_http_open(struct bench_target **out, const struct bench_settings *settings,
                            struct error *err);

/* ---- the machine ---- */

struct bench_limit {
    int threads;
    double read_bytes_s, dense_flop_s;
    double read_mean_bytes_s, dense_mean_flop_s; /* what the machine gave, other guests and all */
};

struct bench_machine {
    char cpu[BENCH_TEXT_BYTES], kernel[BENCH_TEXT_BYTES], code_path[BENCH_TEXT_BYTES];
    int n_cpus; /* that this process may use */
    double memory_bytes;
    int n_measured;                                     /* times */
    int n_limits;                                       /* 0: not measured */
    struct bench_limit limits[BENCH_THREAD_LIMITS_MAX]; /* ascending by threads */
};

void bench_machine_describe(struct bench_machine *out);

/* Runs mgpt-worker --measure; of this and earlier measurements the larger number stays, of means
 * their mean. */
enum status bench_machine_measure(struct bench_machine *machine, struct error *err);

/* ---- one run ---- */

struct bench_mix {
    int n;
    struct {
        struct picture_size size;
        double share;
    } sizes[BENCH_SIZES_MAX];
};

/* Lines "WxH [SHARE]", # starts a comment. STATUS_INVALID names file and line. */
enum status bench_mix_read(struct bench_mix *out, const char *path, struct error *err);

enum { BENCH_PROMPTS = 8 }; /* taken in turn, each request's with its number */

struct bench_load {
    int n_requests;
    int concurrency; /* closed loop: so many are always open */
    double rate;     /* open loop: Poisson arrivals, requests a minute; 0: closed */
    uint64_t seed;
    const struct bench_mix *mix;
};

struct bench_record {
    struct picture_size size;
    int64_t due_ns; /* when it should be sent: waiting for a place counts */
    int64_t row_ns; /* 0: none yet */
    int64_t end_ns;
    int n_prompt;
    bool failed;
};

struct bench_run {
    struct bench_load load;
    struct bench_record *records; /* [load.n_requests] */
    int n_failed;
    char failure[BENCH_ERROR_BYTES]; /* the first one's text */
    int64_t start_ns, end_ns;        /* first order due to last end */
    struct bench_figures before, after;
};

/* The caller ends *run with bench_run_fini(), also on error. Failed requests are no error of the
 * run. STATUS_CANCELED: interrupted. */
enum status bench_load_run(struct bench_run *run, struct bench_target *target,
                           const struct bench_load *load, struct error *err);
void bench_run_fini(struct bench_run *run);

/* ---- figures ---- */

enum { BENCH_P50, BENCH_P95, BENCH_P99, BENCH_PERCENTILES };

struct bench_result {
    struct bench_load load;
    int n_failed;
    char failure[BENCH_ERROR_BYTES];
    double wall_s;
    double images_per_min, tokens_per_s; /* of requests that did not fail */
    double first_row_s[BENCH_PERCENTILES], image_s[BENCH_PERCENTILES];
    double goodput_per_min, deadline_s;
    double prompt_tokens; /* mean, of requests that did not fail */
    double rows_per_read, hop_bytes;
    double busy_share; /* U over the whole run */
    double
        busy_share_active; /* U over the time with work in the stages: without pixels at the end */
    double codec_busy_s;
    int n_stages;
    struct bench_stage stages[BENCH_STAGES_MAX];

    /* What the machine allows; 0 when the model or the machine is not known. */
    double read_bytes, operations; /* of the plans that ran */
    double limit_s;                /* max of both at the machine's best */
    double images_per_min_limit;   /* with one read of the weights for all open requests */
    double of_limit;               /* images_per_min / images_per_min_limit */
    double of_mean_limit;          /* the same by what the machine gave in the mean */
};

void bench_result_make(struct bench_result *out, const struct bench_run *run,
                       const struct bench_target *target, double deadline_s);

/* The limits are known last, when the load is over. */
void bench_result_limit(struct bench_result *result, const struct bench_run *run,
                        const struct bench_target *target, const struct bench_machine *machine);

/* The limit of the machine with all threads; NULL: not measured. */
const struct bench_limit *bench_machine_best(const struct bench_machine *machine);

/* One object with everything; NULL: no memory. */
json_t *bench_report_json(const struct bench_settings *settings, const struct bench_target *target,
                          const struct bench_machine *machine, const struct bench_result *results,
                          int n_results);

void bench_report_table(const struct bench_target *target, const struct bench_machine *machine,
                        const struct bench_result *results, int n_results);

/* images/min and time per image against concurrency or rate. */
enum status bench_chart_write(const char *path, const struct bench_target *target,
                              const struct bench_machine *machine,
                              const struct bench_result *results, int n_results, struct error *err);

#endif
