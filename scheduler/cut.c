/*
 * cut.c - dealing units to stages; see cut.h.
 *
 * The best cut is found by dynamic programming over "the first u units on the first s stages",
 * twice: once for the smallest largest time, then among the cuts that keep that time for the fewest
 * halved layers and the smallest largest bytes.
 */
#include "scheduler/cut.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/config.h"

static const double TIME_SLACK = 1e-9; /* of the best time, against rounding of sums */

static int64_t attention_items(const struct model_config *c)
{
    int64_t hidden = c->hidden;
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    int64_t items = hidden * (2 * q + 2 * kv) + hidden;
    items += 2 * (q + kv); /* norms of q and k, at their largest: weight and bias of each head */
    return c->attention_bias ? items + q + 2 * kv + hidden : items;
}

static int64_t feed_forward_items(const struct model_config *c)
{
    int64_t hidden = c->hidden, inter = c->inter;
    int64_t items = 3 * hidden * inter + hidden;
    return c->mlp_bias ? items + 2 * inter + hidden : items;
}

/* In items; cut_units() makes bytes of them. */
static struct cut_unit unit_of(enum unit_kind kind, const struct cut_question *question)
{
    const struct model_config *c = question->config;
    int64_t hidden = c->hidden, table = c->vocab * hidden, items = 0;
    double codes = question->n_codes < c->vocab ? question->n_codes : c->vocab;
    double keys = 2.0 * c->n_kv_heads * c->head_dim * question->n_positions; /* and values */
    switch (kind) {
    case UNIT_EMBEDDING:
        return (struct cut_unit){.weight_bytes = table, .time = CUT_ROWS * (double)hidden};
    case UNIT_ATTENTION:
        items = attention_items(c);
        return (struct cut_unit){.weight_bytes = items, .time = (double)items + CUT_ROWS * keys};
    case UNIT_FEED_FORWARD:
        items = feed_forward_items(c);
        return (struct cut_unit){.weight_bytes = items, .time = (double)items};
    case UNIT_HEAD:
        break;
    }
    return (struct cut_unit){.weight_bytes = table + hidden, .time = codes * (double)hidden};
}

int cut_units(struct cut_unit units[UNITS_MAX], const struct cut_question *question)
{
    int n_layers = question->config->n_layers, n = units_count(n_layers);
    CHECK(n <= UNITS_MAX);
    for (int i = 0; i < n; i++) {
        units[i] = unit_of(units_kind(i, n_layers), question);
        units[i].weight_bytes *= question->item_bytes;
        units[i].time *= question->item_bytes;
    }
    return n;
}

/* Sums of the first i units, so that a range costs one subtraction. */
struct sums {
    double time[UNITS_MAX + 1];
    int64_t bytes[UNITS_MAX + 1];
};

struct search {
    const struct sums *sums;
    const double *speeds;
    const int64_t *memory_bytes;
    double time_limit; /* of a stage */
    bool by_bytes;     /* what is made small: bytes after the number of halved layers; else time */
};

/* Of a cut of the first units; compared in this order. */
struct cost {
    int n_halved;   /* layers cut in two; 0 while time is made small */
    double largest; /* of a stage */
};

static const struct cost TOO_MUCH = {INT_MAX, INFINITY}; /* does not fit */

static bool is_less(struct cost a, struct cost b)
{
    return a.n_halved != b.n_halved ? a.n_halved < b.n_halved : a.largest < b.largest;
}

/* With one more stage of units [first, end). */
static struct cost add_stage(const struct search *search, struct cost before, int stage, int first,
                             int end)
{
    double time = search->sums->time[end] - search->sums->time[first];
    int64_t bytes = search->sums->bytes[end] - search->sums->bytes[first];
    if (search->speeds)
        time /= search->speeds[stage];
    if (time > search->time_limit || (search->memory_bytes && bytes > search->memory_bytes[stage]))
        return TOO_MUCH;
    double own = search->by_bytes ? (double)bytes : time;
    bool is_halved = first > 0 && first % 2 == 0; /* begins with the second half of a layer */
    return (struct cost){.n_halved = before.n_halved + (search->by_bytes && is_halved),
                         .largest = own > before.largest ? own : before.largest};
}

/* best[s][u]: smallest cost of the first u units on stages 0..s; from[s][u]: where the last of them
 * starts. Returns the cost of all, TOO_MUCH when nothing fits. */
static struct cost solve(const struct search *search, int n_stages, int n_units, struct cost *best,
                         int *from)
{
    static const struct cost nothing = {0, 0};
    int width = n_units + 1;
    for (int s = 0; s < n_stages; s++) {
        for (int u = 0; u <= n_units; u++) {
            struct cost *cell = &best[s * width + u];
            *cell = TOO_MUCH;
            for (int first = s; first < u && (s > 0 || first == 0); first++) {
                struct cost before = s > 0 ? best[(s - 1) * width + first] : nothing;
                if (!is_less(before, *cell))
                    continue;
                struct cost cost = add_stage(search, before, s, first, u);
                if (is_less(cost, *cell)) {
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
    CHECK(n_units <= UNITS_MAX);
    enum status st = check_counts(n_stages, units, n_units, speeds, err);
    if (st != STATUS_OK)
        return st;
    size_t cells = (size_t)n_stages * (size_t)(n_units + 1);
    struct sums *sums = calloc(1, sizeof(*sums));
    struct cost *best = malloc(cells * sizeof(*best));
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
    double time = solve(&search, n_stages, n_units, best, from).largest;
    if (isinf(time)) {
        st = error_set(err, STATUS_NOMEM, "%lld bytes of weights do not fit into %d stages",
                       (long long)sums->bytes[n_units], n_stages);
        goto out;
    }
    search.time_limit = time * (1 + TIME_SLACK);
    search.by_bytes = true;
    CHECK(!isinf(solve(&search, n_stages, n_units, best, from).largest));
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

/* The units that a name at *text stands for; moves behind it. False when there is none. */
static bool parse_name(struct cut_stage *out, const char **text, int n_units)
{
    bool is_embed = strncmp(*text, "embed", 5) == 0, is_head = strncmp(*text, "head", 4) == 0;
    if (is_embed || is_head) {
        *text += is_embed ? 5 : 4;
        out->first_unit = out->last_unit = is_embed ? 0 : n_units - 1;
        return true;
    }
    int layer = 0, digits = 0;
    for (; isdigit((unsigned char)**text); (*text)++, digits++) {
        if (layer < UNITS_MAX)
            layer = layer * 10 + (**text - '0');
    }
    if (digits == 0 || layer >= (n_units - 2) / 2)
        return false;
    out->first_unit = 1 + 2 * layer + (**text == 'f');
    out->last_unit = 2 + 2 * layer - (**text == 'a');
    *text += **text == 'a' || **text == 'f';
    return true;
}

static enum status parse_stage(struct cut_stage *stage, const char **text, int n_units,
                               struct error *err)
{
    const char *start = *text;
    bool ok = parse_name(stage, text, n_units);
    if (ok && **text == '-') {
        struct cut_stage last = *stage;
        (*text)++;
        ok = parse_name(&last, text, n_units) && last.last_unit >= stage->first_unit;
        stage->last_unit = last.last_unit;
    }
    if (!ok || (**text != ',' && **text != '\0'))
        return error_set(err, STATUS_INVALID,
                         "cannot read the stage at '%.40s', expected units or FIRST-LAST out of "
                         "embed, 0 to %d, head; 0a and 0f are the attention and the feed-forward "
                         "half of layer 0",
                         start, (n_units - 2) / 2 - 1);
    if (**text == ',' && *++*text == '\0')
        return error_set(err, STATUS_INVALID, "a cut ends with a comma");
    return STATUS_OK;
}

/* Each stage begins behind the one before, and nothing is left out. */
static enum status check_cut(const struct cut_stage *stages, int n, const char *text, int n_units,
                             struct error *err)
{
    for (int i = 0; i <= n; i++) {
        int expected = i ? stages[i - 1].last_unit + 1 : 0;
        int found = i < n ? stages[i].first_unit : n_units;
        char where[UNITS_TEXT_BYTES];
        if (found == expected)
            continue;
        bool is_gap = found > expected;
        units_format(where, is_gap ? expected : found, (is_gap ? found : expected) - 1,
                     (n_units - 2) / 2);
        return error_set(err, STATUS_INVALID, "the cut '%.60s' %s at %s", text,
                         is_gap ? "leaves a gap" : "overlaps", where);
    }
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
    enum status st = check_cut(stages, n, text, n_units, err);
    for (int i = 0; st == STATUS_OK && i < n; i++)
        fill_stage(&stages[i], units, stages[i].first_unit, stages[i].last_unit, 1);
    *n_stages = n;
    return st;
}

enum status cut_model(struct cut_stage stages[CUT_STAGES_MAX], int *n_stages,
                      const struct cut_question *question, struct error *err)
{
    struct cut_unit *units = malloc(UNITS_MAX * sizeof(*units));
    if (!units)
        return error_set(err, STATUS_NOMEM, "cannot allocate the units of a model");
    int n_units = cut_units(units, question);
    *n_stages = question->n_stages;
    enum status st =
        question->text
            ? cut_parse(stages, CUT_STAGES_MAX, n_stages, question->text, units, n_units, err)
            : cut_balance(stages, *n_stages, units, n_units, NULL, NULL, err);
    free(units);
    if (st == STATUS_OK && question->n_stages != 1 && *n_stages != question->n_stages)
        return error_set(err, STATUS_INVALID, "the cut '%.60s' has %d stages, %d were asked for",
                         question->text, *n_stages, question->n_stages);
    return st;
}
