/*
 * main.c - mgpt-sim: one simulation by options, or the promised cases.
 */
#include <getopt.h>
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
    "  --rate X             poisson: a minute [10]\n"
    "  --concurrency N      closed: so many live always [32]\n"
    "  --warm S --seconds S closed: the measured span [60, 300]\n"
    "  --mix WxH:SHARE,..   sizes [512x512:1]\n"
    "  --prompt N           tokens, between half and one and a half of it [60]\n"
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

/* Times of a real run, as lines STAGE,TOKENS,POSITIONS,US. */
static int load_measured(struct cost_model *cost, const char *path)
{
    FILE *file = fopen(path, "r");
    int stage, tokens, n = 0;
    double context, us;
    if (!file)
        return 1;
    while (fscanf(file, "%d,%d,%lf,%lf\n", &stage, &tokens, &context, &us) == 4) {
        cost_observe(cost, stage, tokens, (int64_t)context, (int64_t)(us * 1e3));
        n++;
    }
    int complete = feof(file);
    fclose(file);
    return n == 0 || !complete || !cost_is_measured(cost);
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

enum {
    OPTION_GOALS = 1,
    OPTION_JSON,
    OPTION_CAUSES,
    OPTION_HELP,
    OPTION_MIX,
    OPTION_SPEEDS,
    OPTION_ARRIVALS,
    OPTION_MEASURED,
    OPTION_NUMBER /* and all above: an index into the table of numbers */
};

struct number {
    const char *name;
    double *real;
    int *integer;
};

int main(int argc, char **argv)
{
    struct sim_options o;
    struct sim_result result;
    struct error err;
    const char *measured = NULL;
    double seed = 1;
    int json = 0, goals = 0, causes = 0;
    sim_options_init(&o);
    const struct number numbers[] = {
        {"stages", NULL, &o.n_stages},
        {"weight-us", &o.weight_us, NULL},
        {"token-us", &o.token_us, NULL},
        {"context-us", &o.context_us, NULL},
        {"fixed-us", &o.fixed_us, NULL},
        {"jitter", &o.jitter, NULL},
        {"hop-us", &o.hop_us, NULL},
        {"turn-us", &o.turn_us, NULL},
        {"requests", NULL, &o.n_requests},
        {"rate", &o.rate, NULL},
        {"concurrency", NULL, &o.concurrency},
        {"warm", &o.warm_s, NULL},
        {"seconds", &o.seconds, NULL},
        {"prompt", NULL, &o.prompt_tokens},
        {"guidance", &o.guidance, NULL},
        {"seed", &seed, NULL},
        {"kv-blocks", NULL, &o.kv_blocks},
        {"micro-batches", NULL, &o.micro_batches},
        {"prefill-chunk", NULL, &o.prefill_chunk},
    };
    enum { N_NUMBERS = sizeof(numbers) / sizeof(numbers[0]) };
    struct option options[N_NUMBERS + 9] = {
        {"goals", no_argument, NULL, OPTION_GOALS},
        {"json", no_argument, NULL, OPTION_JSON},
        {"causes", no_argument, NULL, OPTION_CAUSES},
        {"help", no_argument, NULL, OPTION_HELP},
        {"mix", required_argument, NULL, OPTION_MIX},
        {"speeds", required_argument, NULL, OPTION_SPEEDS},
        {"arrivals", required_argument, NULL, OPTION_ARRIVALS},
        {"measured", required_argument, NULL, OPTION_MEASURED},
    };
    for (int i = 0; i < N_NUMBERS; i++)
        options[8 + i] =
            (struct option){numbers[i].name, required_argument, NULL, OPTION_NUMBER + i};
    for (int found; (found = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        double value;
        if (found == '?')
            return 2;
        if (found == OPTION_HELP) {
            fputs(help, stdout);
            return 0;
        }
        if (found == OPTION_GOALS)
            goals = 1;
        else if (found == OPTION_JSON)
            json = 1;
        else if (found == OPTION_CAUSES)
            causes = 1;
        else if (found == OPTION_MEASURED)
            measured = optarg;
        else if (found == OPTION_MIX && parse_mix(&o, optarg))
            return wrong("--mix", optarg);
        else if (found == OPTION_SPEEDS && parse_speeds(&o, optarg))
            return wrong("--speeds", optarg);
        else if (found == OPTION_ARRIVALS && parse_arrivals(&o, optarg))
            return wrong("--arrivals", optarg);
        else if (found >= OPTION_NUMBER) {
            const struct number *number = &numbers[found - OPTION_NUMBER];
            if (parse_number(&value, optarg))
                return wrong(number->name, optarg);
            if (number->real)
                *number->real = value;
            else
                *number->integer = (int)value;
        }
    }
    if (optind < argc)
        return wrong("an option", argv[optind]);
    if (goals)
        return goals_run() > 0;
    o.seed = (uint64_t)seed;
    struct cost_model *cost = NULL;
    if (measured) {
        if (o.n_stages < 1 || o.n_stages > SCHEDULER_STAGES_MAX ||
            cost_create(&cost, o.n_stages, NULL, &err) != STATUS_OK ||
            load_measured(cost, measured))
            return wrong("--measured", measured);
        o.measured = cost;
    }
    enum status st = sim_run(&o, &result, &err);
    cost_destroy(cost);
    if (st != STATUS_OK) {
        fprintf(stderr, "mgpt-sim: %s\n", err.text);
        return st == STATUS_INVALID ? 2 : 1;
    }
    if (json) {
        report_json(&o, &result);
    } else {
        report_head();
        report_line("", &o, &result);
        if (causes)
            run_causes(&o);
    }
    return 0;
}
