/*
 * cut.c - dealing units to stages; see cut.h.
 *
 * The best cut is found by dynamic programming over "the first u units on the first s stages",
 * twice: once for the smallest largest time, then for the smallest largest bytes among the cuts
 * that keep that time.
 */
#include "scheduler/cut.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/config.h"

static const double TIME_SLACK = 1e-9; /* of the best time, against rounding of sums */

static int64_t layer_items(const struct model_config *c)
{
    int64_t hidden = c->hidden, inter = c->inter;
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    int64_t items = hidden * (2 * q + 2 * kv) + 3 * hidden * inter + 2 * hidden;
    items += 2 * (q + kv); /* norms of q and k, at their largest: weight and bias of each head */
    if (c->attention_bias)
        items += q + 2 * kv + hidden;
    if (c->mlp_bias)
        items += 2 * inter + hidden;
    return items;
}

enum status cut_units(struct cut_unit *units, int units_max, int *n_units,
                      const struct model_config *config, int weight_item_bytes, int n_codes,
                      struct error *err)
{
    int n = config->n_layers + 2;
    if (n > units_max || n > CUT_UNITS_MAX)
        return error_set(err, STATUS_UNSUPPORTED, "%d layers, at most %d can be cut into stages",
                         config->n_layers,
                         (units_max < CUT_UNITS_MAX ? units_max : CUT_UNITS_MAX) - 2);
    int64_t table = (int64_t)config->vocab * config->hidden * weight_item_bytes;
    int64_t layer = layer_items(config) * weight_item_bytes;
    /* A step reads one row of the embedding for each token: nothing beside a layer. */
    units[0] = (struct cut_unit){.weight_bytes = table,
                                 .time = (double)config->hidden * weight_item_bytes};
    for (int i = 1; i <= config->n_layers; i++)
        units[i] = (struct cut_unit){.weight_bytes = layer, .time = (double)layer};
    double codes = n_codes < config->vocab ? n_codes : config->vocab;
    units[n - 1] =
        (struct cut_unit){.weight_bytes = table + (int64_t)config->hidden * weight_item_bytes,
                          .time = codes * config->hidden * weight_item_bytes};
    *n_units = n;
    return STATUS_OK;
}

/* Sums of the first i units, so that a range costs one subtraction. */
struct sums {
    double time[CUT_UNITS_MAX + 1];
    int64_t bytes[CUT_UNITS_MAX + 1];
};

struct search {
    const struct sums *sums;
    const double *speeds;
    const int64_t *memory_bytes;
    double time_limit; /* of a stage */
    bool by_bytes;     /* what is made small */
};

static double range_cost(const struct search *search, int stage, int first, int end)
{
    double time = search->sums->time[end] - search->sums->time[first];
    int64_t bytes = search->sums->bytes[end] - search->sums->bytes[first];
    if (search->speeds)
        time /= search->speeds[stage];
    if ((search->memory_bytes && bytes > search->memory_bytes[stage]) || time > search->time_limit)
        return INFINITY;
    return search->by_bytes ? (double)bytes : time;
}

/* best[s][u]: smallest largest cost of the first u units on stages 0..s; from[s][u]: where the last
 * of them starts. Returns the cost of all, INFINITY when nothing fits. */
static double solve(const struct search *search, int n_stages, int n_units, double *best, int *from)
{
    int width = n_units + 1;
    for (int s = 0; s < n_stages; s++) {
        for (int u = 0; u <= n_units; u++) {
            double *cell = &best[s * width + u];
            *cell = INFINITY;
            if (s == 0 && u > 0) {
                *cell = range_cost(search, 0, 0, u);
                from[u] = 0;
            }
            for (int first = s; s > 0 && first < u; first++) {
                double before = best[(s - 1) * width + first];
                if (before >= *cell)
                    continue;
                double own = range_cost(search, s, first, u);
                double cost = own > before ? own : before;
                if (cost < *cell) {
                    *cell = cost;
                    from[s * width + u] = first;
                }
            }
        }
    }
    return best[n_stages * width - 1];
}

static void fill_stage(struct cut_stage *stage, const struct cut_unit *units, int first, int last,
                       double speed)
{
    *stage = (struct cut_stage){.first_unit = first, .last_unit = last};
    for (int i = first; i <= last; i++) {
        stage->weight_bytes += units[i].weight_bytes;
        stage->time += units[i].time / speed;
    }
}

static enum status check_counts(int n_stages, const struct cut_unit *units, int n_units,
                                const double *speeds, struct error *err)
{
    if (n_stages < 1 || n_stages > CUT_STAGES_MAX || n_stages > n_units)
        return error_set(err, STATUS_INVALID, "%d stages, expected 1 to %d for %d units", n_stages,
                         n_units < CUT_STAGES_MAX ? n_units : CUT_STAGES_MAX, n_units);
    if (n_units > CUT_UNITS_MAX)
        return error_set(err, STATUS_INVALID, "%d units, at most %d", n_units, CUT_UNITS_MAX);
    for (int i = 0; i < n_units; i++) {
        if (units[i].weight_bytes < 0 || !(units[i].time >= 0) || !isfinite(units[i].time))
            return error_set(err, STATUS_INVALID, "unit %d has %lld bytes and time %g", i,
                             (long long)units[i].weight_bytes, units[i].time);
    }
    for (int i = 0; speeds && i < n_stages; i++) {
        if (!(speeds[i] > 0) || !isfinite(speeds[i]))
            return error_set(err, STATUS_INVALID, "speed %g of stage %d, expected above 0",
                             speeds[i], i);
    }
    return STATUS_OK;
}

enum status cut_balance(struct cut_stage *stages, int n_stages, const struct cut_unit *units,
                        int n_units, const double *speeds, const int64_t *memory_bytes,
                        struct error *err)
{
    enum status st = check_counts(n_stages, units, n_units, speeds, err);
    if (st != STATUS_OK)
        return st;
    size_t cells = (size_t)n_stages * (size_t)(n_units + 1);
    struct sums *sums = calloc(1, sizeof(*sums));
    double *best = malloc(cells * sizeof(*best));
    int *from = calloc(cells, sizeof(*from));
    if (!sums || !best || !from) {
        st = error_set(err, STATUS_NOMEM, "cannot allocate a cut of %d units", n_units);
        goto out;
    }
    for (int i = 0; i < n_units; i++) {
        sums->time[i + 1] = sums->time[i] + units[i].time;
        sums->bytes[i + 1] = sums->bytes[i] + units[i].weight_bytes;
    }
    struct search search = {sums, speeds, memory_bytes, INFINITY, false};
    double time = solve(&search, n_stages, n_units, best, from);
    if (isinf(time)) {
        st = error_set(err, STATUS_NOMEM, "%lld bytes of weights do not fit into %d stages",
                       (long long)sums->bytes[n_units], n_stages);
        goto out;
    }
    search.time_limit = time * (1 + TIME_SLACK);
    search.by_bytes = true;
    CHECK(!isinf(solve(&search, n_stages, n_units, best, from)));
    for (int s = n_stages - 1, end = n_units; s >= 0; s--) {
        int first = from[s * (n_units + 1) + end];
        fill_stage(&stages[s], units, first, end - 1, speeds ? speeds[s] : 1);
        end = first;
    }
out:
    free(sums);
    free(best);
    free(from);
    return st;
}

/* A unit's name at *text; moves behind it. -1 when there is none. */
static int parse_unit(const char **text, int n_units)
{
    if (strncmp(*text, "embed", 5) == 0) {
        *text += 5;
        return 0;
    }
    if (strncmp(*text, "head", 4) == 0) {
        *text += 4;
        return n_units - 1;
    }
    int64_t layer = 0;
    int digits = 0;
    for (; isdigit((unsigned char)**text); (*text)++, digits++) {
        if (layer < CUT_UNITS_MAX)
            layer = layer * 10 + (**text - '0');
    }
    return digits > 0 && layer < n_units - 2 ? (int)layer + 1 : -1;
}

static enum status parse_stage(struct cut_stage *stage, const char **text, int n_units,
                               struct error *err)
{
    const char *start = *text;
    stage->first_unit = stage->last_unit = parse_unit(text, n_units);
    if (stage->first_unit >= 0 && **text == '-') {
        (*text)++;
        stage->last_unit = parse_unit(text, n_units);
    }
    if (stage->first_unit < 0 || stage->last_unit < stage->first_unit ||
        (**text != ',' && **text != '\0'))
        return error_set(
            err, STATUS_INVALID,
            "cannot read the stage at '%.40s', expected units or FIRST-LAST out of embed, "
            "0 to %d, head",
            start, n_units - 3);
    if (**text == ',' && *++*text == '\0')
        return error_set(err, STATUS_INVALID, "a cut ends with a comma");
    return STATUS_OK;
}

enum status cut_parse(struct cut_stage *stages, int stages_max, int *n_stages, const char *text,
                      const struct cut_unit *units, int n_units, struct error *err)
{
    int n = 0;
    const char *at = text;
    if (*at == '\0')
        return error_set(err, STATUS_INVALID, "an empty cut");
    while (*at) {
        if (n == stages_max || n == CUT_STAGES_MAX)
            return error_set(err, STATUS_INVALID, "the cut '%.60s' has more than %d stages", text,
                             n);
        enum status st = parse_stage(&stages[n++], &at, n_units, err);
        if (st != STATUS_OK)
            return st;
    }
    if (stages[0].first_unit == 1)
        stages[0].first_unit = 0;
    if (stages[n - 1].last_unit == n_units - 2)
        stages[n - 1].last_unit = n_units - 1;
    for (int i = 0; i <= n; i++) {
        int expected = i ? stages[i - 1].last_unit + 1 : 0;
        int found = i < n ? stages[i].first_unit : n_units;
        char unit[CUT_TEXT_BYTES] = "the end";
        if (found == expected)
            continue;
        if (expected < n_units)
            cut_format(unit, expected, expected, n_units - 2);
        return error_set(err, STATUS_INVALID, "the cut '%.60s' %s at %s", text,
                         found > expected ? "leaves a gap" : "overlaps", unit);
    }
    for (int i = 0; i < n; i++)
        fill_stage(&stages[i], units, stages[i].first_unit, stages[i].last_unit, 1);
    *n_stages = n;
    return STATUS_OK;
}

void cut_measured_speeds(double *speeds, const struct cut_stage *stages, const int64_t *measured_ns,
                         int n_stages, const struct cut_unit *units)
{
    for (int i = 0; i < n_stages; i++) {
        double time = 0;
        for (int u = stages[i].first_unit; u <= stages[i].last_unit; u++)
            time += units[u].time;
        speeds[i] = time > 0 && measured_ns[i] > 0 ? time / (double)measured_ns[i] : 0;
    }
    /* A stage of the embedding alone, or not measured, tells nothing: it counts as an average one.
     */
    double sum = 0;
    int n = 0;
    for (int i = 0; i < n_stages; i++) {
        bool telling = stages[i].first_unit != stages[i].last_unit || stages[i].first_unit > 0;
        if (!telling)
            speeds[i] = 0;
        sum += speeds[i];
        n += speeds[i] > 0;
    }
    for (int i = 0; i < n_stages; i++) {
        double mean = n > 0 ? sum / n : 1;
        speeds[i] = speeds[i] > 0 ? speeds[i] / mean : 1;
    }
}

void cut_format(char text[CUT_TEXT_BYTES], int first_unit, int last_unit, int n_layers)
{
    int first = first_unit > 0 ? first_unit - 1 : 0;
    int last = last_unit <= n_layers ? last_unit - 1 : n_layers - 1;
    int n = 0;
    text[0] = '\0';
    if (first_unit == 0)
        n += snprintf(text + n, (size_t)(CUT_TEXT_BYTES - n), "embed");
    if (first <= last)
        n += snprintf(text + n, (size_t)(CUT_TEXT_BYTES - n), first == last ? "%s%d" : "%s%d-%d",
                      n ? "," : "", first, last);
    if (last_unit > n_layers)
        snprintf(text + n, (size_t)(CUT_TEXT_BYTES - n), "%shead", n ? "," : "");
}
