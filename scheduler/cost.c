/*
 * cost.c - a Kalman filter of t(rows, context) for each stage; see cost.h.
 *
 * Numbers are kept relative to a scale (ns), so that variances mean the same for a stage of 50 us
 * and one of 50 ms. Between two measurements the machine may become faster or slower as a whole
 * (DRIFT): what is seen at one number of rows then holds for the others too.
 */
#include "scheduler/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/scheduler.h"

enum {
    COST_CORNERS = 5,
    FEATURE_ONE = 0, /* the fixed part */
    FEATURE_ROW = 1, /* slope up to the first corner; then the changes of slope at the corners */
    FEATURE_CONTEXT = 2 + COST_CORNERS,
    N_FEATURES = 3 + COST_CORNERS
};
static const double corners[COST_CORNERS] = {4, 8, 16, 64, 256};

/* Unknown machines: products bind from 32 rows on, and 20,000 positions take as long to read as the
 * weights. */
#define DEFAULT_WEIGHT_NS    5e6
#define DEFAULT_CROSSING     32
#define DEFAULT_POSITIONS    20000
#define CONTEXT_SCALE        1024.0 /* positions in one unit of the context feature */
#define NOISE                0.05   /* standard deviation of a measurement, relative */
#define PRIOR_SPREAD         1.0    /* standard deviation of the prior's parts, relative */
#define SPREAD_FLOOR         0.05   /* and at least this share of a step of one row */
#define FADE                 1e-5 /* of the prior's variance that comes back with every measurement */
#define DRIFT                0.005 /* standard deviation of the machine's speed from one to the next */
#define CLIP_SIGMA           3.0
#define COST_UNEVEN          0.05 /* of a round is lost where no micro-batch is ready meanwhile */
#define COST_SLACK           0.02 /* rounds this much longer than the shortest count as equal */
#define COST_SLACK_STAY      0.04 /* for the present number of micro-batches: changing costs too */
#define COST_EQUAL           0.15 /* stages whose times differ no more, of one, count as equal */
#define MEASURED_BEFORE_CLIP 8

struct stage_cost {
    double scale;            /* ns */
    double mean[N_FEATURES]; /* in scales */
    double var[N_FEATURES][N_FEATURES];
    double prior_var[N_FEATURES];
    int n_measured; /* saturates */
};

struct cost_model {
    int n_stages, n_measured_stages;
    struct stage_cost stages[];
};

static void features(double x[N_FEATURES], double n_tokens, double n_context)
{
    x[FEATURE_ONE] = 1;
    x[FEATURE_ROW] = n_tokens;
    for (int i = 0; i < COST_CORNERS; i++)
        x[2 + i] = n_tokens > corners[i] ? n_tokens - corners[i] : 0;
    x[FEATURE_CONTEXT] = n_context / CONTEXT_SCALE;
}

/* max(weight, rows * token) as corners: the change of slope is shared by the two corners beside the
 * crossing, so that beyond both the line is exact. */
static void set_slopes(struct stage_cost *stage, double crossing, double slope)
{
    if (crossing <= 0 || crossing >= corners[COST_CORNERS - 1]) {
        stage->mean[crossing <= 0 ? FEATURE_ROW : 1 + COST_CORNERS] = slope;
        return;
    }
    int above = 0;
    while (corners[above] <= crossing)
        above++;
    double below = above > 0 ? corners[above - 1] : 0;
    double share = (corners[above] - crossing) / (corners[above] - below);
    stage->mean[1 + above] = slope * share;
    stage->mean[2 + above] = slope * (1 - share);
}

static void stage_init(struct stage_cost *stage, const struct scheduler_stage_prior *prior)
{
    double weight = prior && prior->weight_ns > 0 ? (double)prior->weight_ns : DEFAULT_WEIGHT_NS;
    double token =
        prior && prior->token_ns > 0 ? (double)prior->token_ns : weight / DEFAULT_CROSSING;
    double context =
        prior && prior->context_ns > 0 ? prior->context_ns : weight / DEFAULT_POSITIONS;
    memset(stage, 0, sizeof(*stage));
    stage->scale = weight;
    stage->mean[FEATURE_ONE] = 1;
    stage->mean[FEATURE_CONTEXT] = context * CONTEXT_SCALE / weight;
    set_slopes(stage, weight / token, token / weight);
    for (int i = 0; i < N_FEATURES; i++) {
        /* A part the prior has at zero may still turn out to matter, at any corner. */
        double least = i == FEATURE_ONE || i == FEATURE_CONTEXT ? SPREAD_FLOOR : token / weight;
        double spread = PRIOR_SPREAD * (stage->mean[i] > least ? stage->mean[i] : least);
        stage->prior_var[i] = spread * spread;
        stage->var[i][i] = stage->prior_var[i];
    }
}

enum status cost_create(struct cost_model **out, int n_stages,
                        const struct scheduler_stage_prior *priors, struct error *err)
{
    *out = NULL;
    CHECK(n_stages > 0);
    struct cost_model *cost = calloc(1, sizeof(*cost) + (size_t)n_stages * sizeof(cost->stages[0]));
    if (!cost)
        return error_set(err, STATUS_NOMEM, "cannot allocate the cost model of %d stages",
                         n_stages);
    cost->n_stages = n_stages;
    for (int i = 0; i < n_stages; i++)
        stage_init(&cost->stages[i], priors ? &priors[i] : NULL);
    *out = cost;
    return STATUS_OK;
}

void cost_destroy(struct cost_model *cost)
{
    free(cost);
}

/*
 * Slopes are summed corner by corner and never taken below zero: more rows never cost less. Nor are
 * they taken above the mean cost of the rows before: together they never cost more than apart, and
 * what noise says of larger steps than any seen would keep them from being tried.
 */
static double predict(const struct stage_cost *stage, double n_tokens, double n_context)
{
    double t = stage->mean[FEATURE_ONE] > 0 ? stage->mean[FEATURE_ONE] : 0;
    double from = 0, slope = stage->mean[FEATURE_ROW];
    for (int i = 0; i <= COST_CORNERS; i++) {
        double to = i < COST_CORNERS && n_tokens > corners[i] ? corners[i] : n_tokens;
        double taken = from > 0 && slope > t / from ? t / from : slope;
        if (to > from && taken > 0)
            t += taken * (to - from);
        if (to >= n_tokens)
            break;
        from = to;
        slope += stage->mean[2 + i];
    }
    if (stage->mean[FEATURE_CONTEXT] > 0)
        t += stage->mean[FEATURE_CONTEXT] * (n_context / CONTEXT_SCALE);
    t *= stage->scale;
    return t > 1 ? t : 1;
}

static void correct(struct stage_cost *stage, const double x[N_FEATURES], double measured)
{
    double px[N_FEATURES], expected = 0, spread = 0;
    for (int i = 0; i < N_FEATURES; i++) {
        for (int j = 0; j < N_FEATURES; j++)
            stage->var[i][j] += DRIFT * DRIFT * stage->mean[i] * stage->mean[j];
    }
    for (int i = 0; i < N_FEATURES; i++) {
        px[i] = 0;
        for (int j = 0; j < N_FEATURES; j++)
            px[i] += stage->var[i][j] * x[j];
        expected += stage->mean[i] * x[i];
        spread += px[i] * x[i];
    }
    double noise = NOISE * measured;
    double total = spread + noise * noise;
    double surprise = measured - expected;
    double limit = CLIP_SIGMA * sqrt(total);
    if (stage->n_measured >= MEASURED_BEFORE_CLIP && fabs(surprise) > limit)
        surprise = surprise > 0 ? limit : -limit;
    for (int i = 0; i < N_FEATURES; i++) {
        stage->mean[i] += px[i] / total * surprise;
        for (int j = 0; j < N_FEATURES; j++)
            stage->var[i][j] -= px[i] * px[j] / total;
    }
    for (int i = 0; i < N_FEATURES; i++) {
        if (stage->var[i][i] < stage->prior_var[i])
            stage->var[i][i] += FADE * stage->prior_var[i];
    }
}

void cost_observe(struct cost_model *cost, int stage_index, int n_tokens, int64_t n_context,
                  int64_t busy_ns)
{
    if (stage_index < 0 || stage_index >= cost->n_stages || n_tokens < 1 || busy_ns < 1)
        return;
    struct stage_cost *stage = &cost->stages[stage_index];
    double x[N_FEATURES];
    if (stage->n_measured == 0) {
        /* The prior's shape is worth more than its speed. */
        stage->scale *= (double)busy_ns / predict(stage, n_tokens, (double)n_context);
        cost->n_measured_stages++;
    }
    features(x, n_tokens, (double)n_context);
    correct(stage, x, (double)busy_ns / stage->scale);
    if (stage->n_measured < MEASURED_BEFORE_CLIP)
        stage->n_measured++;
}

bool cost_is_measured(const struct cost_model *cost)
{
    return cost->n_measured_stages == cost->n_stages;
}

double cost_stage_ns(const struct cost_model *cost, int stage, double n_tokens, double n_context)
{
    CHECK(stage >= 0);
    CHECK(stage < cost->n_stages);
    return predict(&cost->stages[stage], n_tokens, n_context);
}

double cost_step_ns(const struct cost_model *cost, double n_tokens, double n_context,
                    double *sum_ns)
{
    double worst = 0, sum = 0;
    for (int i = 0; i < cost->n_stages; i++) {
        double t = predict(&cost->stages[i], n_tokens, n_context);
        sum += t;
        if (t > worst)
            worst = t;
    }
    if (sum_ns)
        *sum_ns = sum;
    return worst;
}

/* So many micro-batches ride out the differences between steps: one more than stages, for then one
 * is always ready. A single stage waits for no other. */
static int enough_slots(const struct cost_model *cost)
{
    return cost->n_stages > 1 ? cost->n_stages + 1 : 1;
}

/* What steps of the slowest stage take with what is lost between them, over the steps alone. */
static double uneven(const struct cost_model *cost, int n_slots)
{
    return n_slots < enough_slots(cost) ? 1 + COST_UNEVEN : 1;
}

double cost_round_ns(const struct cost_model *cost, int n_slots, double n_tokens, double n_context,
                     double overhead_ns)
{
    double sum;
    double worst = cost_step_ns(cost, n_tokens / n_slots, n_context / n_slots, &sum);
    double busy = n_slots * worst * uneven(cost, n_slots);
    double way = sum + overhead_ns;
    return busy > way ? busy : way;
}

/*
 * So many micro-batches keep the slowest stage busy, however rows cost: equal stages take one each.
 * With fewer, all stages are idle at times, and that is shorter only where rows cost nothing, by
 * COST_UNEVEN at most. But a pipeline that has come to run fewer measures no smaller steps any
 * more, and what it believed of them would keep it there.
 */
static int least_slots(const struct cost_model *cost, int n_slots_max, double n_tokens,
                       double n_context)
{
    double sum, n = cost->n_stages;
    double worst = cost_step_ns(cost, n_tokens / n, n_context / n, &sum);
    int least = (int)(sum / worst + COST_EQUAL);
    return least < n_slots_max ? least : n_slots_max;
}

int cost_best_slots(const struct cost_model *cost, int n_slots_max, int current, double n_tokens,
                    double n_context, double overhead_ns)
{
    /* The round is shortest where the two bounds of cost_round_ns meet: at about sum / worst
     * micro-batches. The step times depend on the number themselves, so the place is found by a few
     * turns and its neighbours are tried. */
    int n = cost->n_stages < n_slots_max ? cost->n_stages : n_slots_max;
    for (int turn = 0; turn < 4; turn++) {
        double sum;
        double worst = cost_step_ns(cost, n_tokens / n, n_context / n, &sum);
        double meet = floor((sum + overhead_ns) / (worst * uneven(cost, n)));
        n = meet < 1 ? 1 : meet > n_slots_max ? n_slots_max : (int)meet;
    }
    const int tried[] = {n,           n - 1, n + 1, n + 2, cost->n_stages, cost->n_stages + 1,
                         n_slots_max, 1};
    enum { N_TRIED = sizeof(tried) / sizeof(tried[0]) };
    double round_ns[N_TRIED], best_ns = INFINITY;
    int least = least_slots(cost, n_slots_max, n_tokens, n_context);
    for (int i = 0; i < N_TRIED; i++) {
        bool possible = tried[i] >= least && tried[i] <= n_slots_max;
        round_ns[i] =
            possible ? cost_round_ns(cost, tried[i], n_tokens, n_context, overhead_ns) : INFINITY;
        best_ns = round_ns[i] < best_ns ? round_ns[i] : best_ns;
    }
    /* Among those as good as the best: the most up to enough, else the fewest. */
    int enough = enough_slots(cost), chosen = 0;
    for (int i = 0; i < N_TRIED; i++) {
        double slack = tried[i] == current ? COST_SLACK_STAY : COST_SLACK;
        if (round_ns[i] > best_ns * (1 + slack))
            continue;
        bool within = tried[i] <= enough, chosen_within = chosen <= enough;
        if (chosen == 0 || (within && chosen_within ? tried[i] > chosen : tried[i] < chosen))
            chosen = tried[i];
    }
    return chosen;
}

void cost_marginal_ns(const struct cost_model *cost, double n_tokens, double n_context,
                      double *token_ns, double *context_ns)
{
    int slowest = 0;
    double worst = 0;
    for (int i = 0; i < cost->n_stages; i++) {
        double t = predict(&cost->stages[i], n_tokens, n_context);
        if (t > worst) {
            worst = t;
            slowest = i;
        }
    }
    const struct stage_cost *stage = &cost->stages[slowest];
    double more = predict(stage, n_tokens + 4, n_context) - worst;
    *token_ns = more > 0 ? more / 4 : 0;
    *context_ns = stage->mean[FEATURE_CONTEXT] > 0
                      ? stage->mean[FEATURE_CONTEXT] * stage->scale / CONTEXT_SCALE
                      : 0;
}
