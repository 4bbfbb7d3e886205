/*
 * main.c - mgpt-sim: one simulation by options, or the promised cases.
 */
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/goals.h"
#include "tests/sim/report.h"

static const char help[] =
    "usage: mgpt-sim [options]\n"
    "       mgpt-sim --goals          the promised cases; exit 1 when one is broken\n"
    "Stages: a step takes fixed + max(weight + positions * context, tokens * token), over the "
    "stage's speed\n"
    "  --stages N           [1]\n"
    "  --weight-us X        one read of a stage's weights [2700]\n"
    "  --token-us X         products of a token in a stage [16.4]\n"
    "  --context-us X       reading a position of the cache in a stage [0.11]\n"
    "  --fixed-us X         of every step [50]\n"
    "  --speeds A,B,..      relative speed of each stage [1,1,..]\n"
    "  --measured FILE      instead: times fitted to lines STAGE,TOKENS,POSITIONS,US\n"
    "  --jitter X           steps take up to so much longer: 0.1 = 10 % [0]\n"
    "  --hop-us X           from a stage to the next [30]\n"
    "  --turn-us X          from the last stage through the scheduler to the first [200]\n"
    "Requests\n"
    "  --arrivals KIND      closed, burst or poisson [burst]\n"
    "  --requests N         burst, poisson [32]\n"
    "  --warm-requests N    burst: so many at once before, not measured [0]\n"
    "  --rate X             poisson: a minute [10]\n"
    "  --concurrency N      closed: so many live always [32]\n"
    "  --warm S --seconds S closed: the measured span [60, 300]\n"
    "  --mix WxH:SHARE,..   sizes [512x512:1]\n"
    "  --prompt N           tokens, between half and one and a half of it [60]\n"
    "  --template N         tokens before those, the same in all prompts [0]\n"
    "  --guidance G         1 = none [4]\n"
    "  --seed N             [1]\n"
    "Scheduler\n"
    "  --kv-blocks N        of 64 positions, a stage [1048576]\n"
    "  --micro-batches N    0 = from measured times [0]\n"
    "  --prefill-chunk N    0 = from measured times [0]\n"
    "  --causes             runs again without links, without jitter, with equal stages: what each "
    "costs\n"
    "  --json               one object on stdout\n"
    "example: mgpt-sim --stages 4 --arrivals closed --mix 512x512:1,768x768:2 --concurrency 64\n";

static int wrong(const char *what, const char *value)
{
    fprintf(stderr, "mgpt-sim: cannot use '%s' for %s\n", value, what);
    return 2;
}

static int parse_number(double *out, const char *text)
{
    char *end;
    *out = strtod(text, &end);
    return *text == '\0' || *end != '\0';
}

static int parse_mix(struct sim_options *o, const char *text)
{
    o->n_sizes = 0;
    while (*text) {
        struct sim_size *size = &o->sizes[o->n_sizes];
        int n = 0;
        if (o->n_sizes == SIM_SIZES_MAX ||
            sscanf(text, "%dx%d:%lf%n", &size->width, &size->height, &size->share, &n) != 3 ||
            (text[n] != ',' && text[n] != '\0'))
            return 1;
        o->n_sizes++;
        text += n + (text[n] == ',');
    }
    return o->n_sizes == 0;
}

static int parse_speeds(struct sim_options *o, const char *text)
{
    for (int i = 0; i < SCHEDULER_STAGES_MAX && *text; i++) {
        char *end;
        o->speeds[i] = strtod(text, &end);
        if (end == text || (*end != ',' && *end != '\0'))
            return 1;
        text = end + (*end == ',');
    }
    return *text != '\0';
}

static int parse_arrivals(struct sim_options *o, const char *text)
{
    static const char *names[] = {"closed", "burst", "poisson"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            o->arrivals = (enum sim_arrivals)i;
            return 0;
        }
    }
    return 1;
}

struct step_time {
    int stage, tokens;
    double context, us;
};

/* The next line STAGE,TOKENS,POSITIONS,US of a real run. */
static int read_step(FILE *file, struct step_time *step)
{
    return fscanf(file, "%d,%d,%lf,%lf\n", &step->stage, &step->tokens, &step->context,
                  &step->us) == 4;
}

/* The fit follows the machine, whose last moment may have been faster or slower than the whole run:
 * each stage's steps take what they took in all. */
static void set_scales(struct sim_options *o, const struct cost_model *cost, FILE *file)
{
    double fitted_us[SCHEDULER_STAGES_MAX] = {0}, us[SCHEDULER_STAGES_MAX] = {0};
    for (struct step_time step; read_step(file, &step);) {
        if (step.stage < 0 || step.stage >= o->n_stages)
            continue;
        fitted_us[step.stage] += cost_stage_ns(cost, step.stage, step.tokens, step.context) / 1e3;
        us[step.stage] += step.us;
    }
    for (int i = 0; i < o->n_stages; i++)
        o->measured_scales[i] = us[i] / fitted_us[i]; /* every stage has steps */
}

static int load_measured(struct sim_options *o, struct cost_model *cost, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return 1;
    int n = 0;
    for (struct step_time step; read_step(file, &step); n++)
        cost_observe(cost, step.stage, step.tokens, (int64_t)step.context,
                     (int64_t)(step.us * 1e3));
    int complete = feof(file), wrong = n == 0 || !complete || !cost_is_measured(cost);
    if (!wrong) {
        rewind(file);
        set_scales(o, cost, file);
        o->measured = cost;
    }
    fclose(file);
    return wrong;
}

/* The same run with one cause of loss taken away at a time: the honest answer to what it costs. */
static void run_causes(const struct sim_options *o)
{
    struct sim_options without[4] = {*o, *o, *o, *o};
    static const char *names[] = {"without links and turn", "without jitter", "with equal stages",
                                  "without limit of cache"};
    without[0].hop_us = without[0].turn_us = 0;
    without[1].jitter = 0;
    for (int i = 0; i < SCHEDULER_STAGES_MAX; i++)
        without[2].speeds[i] = 1;
    without[3].kv_blocks = 1 << 20;
    for (int i = 0; i < 4; i++) {
        struct sim_result result;
        if (sim_run(&without[i], &result, NULL) == STATUS_OK)
            report_line(names[i], &without[i], &result);
    }
}

enum { OPTION_TEXT = 1, OPTION_NUMBER };

/* What the command line says. */
struct settings {
    struct sim_options sim;
    const char *measured;
    double seed;
    int json, goals, causes, help;
};

struct number {
    const char *name;
    size_t offset; /* in struct settings */
    int is_integer;
};
static const struct number numbers[] = {
    {"stages", offsetof(struct settings, sim.n_stages), 1},
    {"weight-us", offsetof(struct settings, sim.weight_us), 0},
    {"token-us", offsetof(struct settings, sim.token_us), 0},
    {"context-us", offsetof(struct settings, sim.context_us), 0},
    {"fixed-us", offsetof(struct settings, sim.fixed_us), 0},
    {"jitter", offsetof(struct settings, sim.jitter), 0},
    {"hop-us", offsetof(struct settings, sim.hop_us), 0},
    {"turn-us", offsetof(struct settings, sim.turn_us), 0},
    {"requests", offsetof(struct settings, sim.n_requests), 1},
    {"warm-requests", offsetof(struct settings, sim.n_warm), 1},
    {"rate", offsetof(struct settings, sim.rate), 0},
    {"concurrency", offsetof(struct settings, sim.concurrency), 1},
    {"warm", offsetof(struct settings, sim.warm_s), 0},
    {"seconds", offsetof(struct settings, sim.seconds), 0},
    {"prompt", offsetof(struct settings, sim.prompt_tokens), 1},
    {"template", offsetof(struct settings, sim.template_tokens), 1},
    {"guidance", offsetof(struct settings, sim.guidance), 0},
    {"seed", offsetof(struct settings, seed), 0},
    {"kv-blocks", offsetof(struct settings, sim.kv_blocks), 1},
    {"micro-batches", offsetof(struct settings, sim.micro_batches), 1},
    {"prefill-chunk", offsetof(struct settings, sim.prefill_chunk), 1},
};
enum { N_NUMBERS = sizeof(numbers) / sizeof(numbers[0]), N_WORDS = 8 };

static int set_number(struct settings *settings, const struct number *number, const char *text)
{
    double value;
    char *at = (char *)settings + number->offset;
    if (parse_number(&value, text) || (number->is_integer && fabs(value) > 1e9))
        return 1;
    if (number->is_integer)
        *(int *)(void *)at = (int)value;
    else
        *(double *)(void *)at = value;
    return 0;
}

static int set_text(struct settings *settings, const char *name, const char *text)
{
    if (strcmp(name, "mix") == 0)
        return parse_mix(&settings->sim, text);
    if (strcmp(name, "speeds") == 0)
        return parse_speeds(&settings->sim, text);
    if (strcmp(name, "arrivals") == 0)
        return parse_arrivals(&settings->sim, text);
    settings->measured = text;
    return 0;
}

/* Returns 0, or 2 after saying what is wrong. */
static int read_options(struct settings *settings, int argc, char **argv)
{
    struct option options[N_WORDS + N_NUMBERS + 1] = {
        {"goals", no_argument, &settings->goals, 1},
        {"json", no_argument, &settings->json, 1},
        {"causes", no_argument, &settings->causes, 1},
        {"help", no_argument, &settings->help, 1},
        {"mix", required_argument, NULL, OPTION_TEXT},
        {"speeds", required_argument, NULL, OPTION_TEXT},
        {"arrivals", required_argument, NULL, OPTION_TEXT},
        {"measured", required_argument, NULL, OPTION_TEXT},
    };
    for (int i = 0; i < N_NUMBERS; i++)
        options[N_WORDS + i] =
            (struct option){numbers[i].name, required_argument, NULL, OPTION_NUMBER};
    int found, index = 0;
    while ((found = getopt_long(argc, argv, "", options, &index)) != -1) {
        int is_wrong = 0;
        if (found == '?')
            return 2;
        if (found == OPTION_TEXT)
            is_wrong = set_text(settings, options[index].name, optarg);
        else if (found == OPTION_NUMBER)
            is_wrong = set_number(settings, &numbers[index - N_WORDS], optarg);
        if (is_wrong)
            return wrong(options[index].name, optarg);
    }
    settings->sim.seed = (uint64_t)settings->seed;
    return optind < argc ? wrong("an option", argv[optind]) : 0;
}

static int run(struct settings *settings)
{
    struct sim_options *o = &settings->sim;
    struct sim_result result;
    struct error err;
    struct cost_model *cost = NULL;
    if (settings->measured) {
        if (o->n_stages < 1 || o->n_stages > SCHEDULER_STAGES_MAX ||
            cost_create(&cost, o->n_stages, NULL, &err) != STATUS_OK ||
            load_measured(o, cost, settings->measured))
            return wrong("measured", settings->measured);
    }
    enum status st = sim_run(o, &result, &err);
    if (st != STATUS_OK) {
        fprintf(stderr, "mgpt-sim: %s\n", err.text);
    } else if (settings->json) {
        report_json(o, &result);
    } else {
        report_head();
        report_line("", o, &result);
        if (settings->causes)
            run_causes(o);
    }
    cost_destroy(cost);
    return st == STATUS_OK ? 0 : st == STATUS_INVALID ? 2 : 1;
}

int main(int argc, char **argv)
{
    static struct settings settings = {.seed = 1};
    sim_options_init(&settings.sim);
    int failed = read_options(&settings, argc, argv);
    if (failed)
        return failed;
    if (settings.help)
        return fputs(help, stdout) < 0;
    if (settings.goals)
        return goals_run() > 0;
    return run(&settings);
}
