/*
 * sample.c - from logits to tokens, each request on one thread, or handed to the device.
 *
 * On the CPU one pass gathers the allowed logits after guidance; the k-th largest is found by
 * counting (exact, no sorting); a bound of logit and noise rules out nearly all of the kept ones,
 * and the noise itself is computed for the rest.
 */
#include "kernels/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/gumbel.h"
#include "kernels/device.h"
#include "kernels/sample_launch.h"

struct work {
    const struct sample_request *requests;
    int n_requests;
    int32_t *ids;
    struct stream *stream;
    gumbel_function gumbel;
    bound_function bound;
    kth_function kth;
    guide_function guide;
    int failed_request; /* the smallest that failed, or n_requests */
};

/* The gathered candidates; ids rise unless they were listed otherwise. */
struct candidates {
    float *logits;
    int32_t *ids;
    float *bounds; /* of what each may come to */
    int n;
    int32_t bad_id; /* an id with NaN */
};

static float guided(const struct sample_request *r, int i)
{
    if (!r->unconditional)
        return r->logits[i];
    float u = r->unconditional[i];
    return u + r->guidance * (r->logits[i] - u);
}

static enum sample_outcome gather_listed(struct candidates *c, const struct sample_request *r)
{
    for (int j = 0; j < r->n_listed; j++) {
        int i = r->listed[j] - r->first_id;
        if (r->allowed && !r->allowed[i])
            continue;
        float logit = guided(r, i);
        if (isnan(logit)) {
            c->bad_id = r->listed[j];
            return SAMPLE_NAN;
        }
        c->logits[c->n] = logit + 0.0f;
        c->ids[c->n++] = r->listed[j];
    }
    return SAMPLE_OK;
}

/* The allowed ones move together; ids rise. */
static void keep_allowed(struct candidates *c, const struct sample_request *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        float logit = c->logits[i];
        c->logits[n] = logit;
        c->ids[n] = r->first_id + i;
        n += r->allowed[i] != 0;
    }
    c->n = n;
}

/* Both ascend. */
static void drop_forbidden(struct candidates *c, const struct sample_request *r)
{
    int n = 0, next = 0;
    for (int i = 0; i < c->n; i++) {
        while (next < r->n_forbidden && r->forbidden[next] < c->ids[i])
            next++;
        if (next < r->n_forbidden && r->forbidden[next] == c->ids[i])
            continue;
        c->logits[n] = c->logits[i];
        c->ids[n++] = c->ids[i];
    }
    c->n = n;
}

static enum sample_outcome gather_all(struct candidates *c, const struct sample_request *r,
                                      guide_function guide)
{
    int not_numbers = 0;
    guide(c->logits, r->logits, r->unconditional, r->guidance, r->n, &not_numbers);
    if (r->allowed) {
        keep_allowed(c, r);
    } else {
        for (int i = 0; i < r->n; i++)
            c->ids[i] = r->first_id + i;
        c->n = r->n;
    }
    if (r->n_forbidden > 0)
        drop_forbidden(c, r);
    for (int i = 0; i < c->n && not_numbers; i++)
        if (isnan(c->logits[i])) {
            c->bad_id = c->ids[i];
            return SAMPLE_NAN;
        }
    return SAMPLE_OK;
}

static void keep_largest(struct candidates *c, int k, kth_function kth)
{
    if (k < 1 || k >= c->n)
        return;
    float *logits = c->logits, least;
    int32_t *ids = c->ids;
    kth(&least, logits, c->n, k);
    int kept = 0;
    for (int i = 0; i < c->n; i++) {
        float logit = logits[i];
        logits[kept] = logit;
        ids[kept] = ids[i];
        kept += logit >= least;
    }
    c->n = kept;
}

struct best {
    double value;
    int32_t id;
};

static void offer(struct best *best, double value, int32_t id)
{
    if (value > best->value || (value == best->value && id < best->id))
        *best = (struct best){value, id};
}

static struct best largest_logit(const struct candidates *c)
{
    struct best best = {-INFINITY, INT32_MAX};
    for (int i = 0; i < c->n; i++)
        offer(&best, (double)c->logits[i], c->ids[i]);
    return best;
}

/* A draw on its way: those that may still win are weighed sixteen at a time. */
struct contest {
    const struct candidates *c;
    double temperature;
    struct gumbel_place place;
    gumbel_function gumbel;
    int pending[GUMBEL_LANES], n_pending;
    struct best best;
};

static void weigh_pending(struct contest *contest)
{
    const struct candidates *c = contest->c;
    int32_t ids[GUMBEL_LANES] = {0};
    double noise[GUMBEL_LANES];
    for (int i = 0; i < contest->n_pending; i++)
        ids[i] = c->ids[contest->pending[i]];
    contest->gumbel(noise, ids, &contest->place);
    for (int i = 0; i < contest->n_pending; i++) {
        double logit = (double)c->logits[contest->pending[i]];
        offer(&contest->best, logit / contest->temperature + noise[i], ids[i]);
    }
    contest->n_pending = 0;
}

static void enter(struct contest *contest, int candidate)
{
    contest->pending[contest->n_pending++] = candidate;
    if (contest->n_pending == GUMBEL_LANES)
        weigh_pending(contest);
}

/* Once a few have been weighed, hardly a bound reaches the best of them. */
static void enter_likely(struct contest *contest, float inverse_temperature, bound_function bound)
{
    const struct candidates *c = contest->c;
    bound(c->bounds, c->logits, c->ids, c->n, inverse_temperature, &contest->place);
    for (int i = 0; i < c->n; i++)
        if ((double)c->bounds[i] >= contest->best.value)
            enter(contest, i);
}

static struct best draw(const struct candidates *c, const struct sample_request *r,
                        const struct work *w)
{
    struct contest contest = {.c = c,
                              .temperature = (double)r->temperature,
                              .place = {{(uint32_t)r->seed, (uint32_t)(r->seed >> 32)},
                                        r->ordinal,
                                        r->picture_index,
                                        SAMPLE_DOMAIN_TOKEN},
                              .gumbel = w->gumbel,
                              .best = {-INFINITY, INT32_MAX}};
    if (c->n > GUMBEL_LANES && isnormal(1.0f / r->temperature))
        enter_likely(&contest, 1.0f / r->temperature, w->bound);
    else
        for (int i = 0; i < c->n; i++)
            enter(&contest, i);
    if (contest.n_pending > 0)
        weigh_pending(&contest);
    return contest.best;
}

static enum sample_outcome sample_one(struct work *w, int index, int thread_index, int32_t *bad_id)
{
    const struct sample_request *r = &w->requests[index];
    size_t room = (size_t)(r->listed && r->n_listed > r->n ? r->n_listed : r->n) +
                  1; /* one past is written too */
    float *scratch = stream_scratch(w->stream, thread_index, 3 * room * sizeof(float));
    if (!scratch)
        return SAMPLE_NOMEM;
    struct candidates c = {
        .logits = scratch, .ids = (int32_t *)(scratch + room), .bounds = scratch + 2 * room};
    enum sample_outcome outcome = r->listed ? gather_listed(&c, r) : gather_all(&c, r, w->guide);
    *bad_id = c.bad_id;
    if (outcome != SAMPLE_OK)
        return outcome;
    struct best best;
    if (r->temperature == 0) {
        best = largest_logit(&c);
    } else {
        keep_largest(&c, r->top_k, w->kth);
        best = draw(&c, r, w);
    }
    if (best.value == -INFINITY)
        return SAMPLE_NONE;
    w->ids[index] = best.id;
    return SAMPLE_OK;
}

static void sample_share(void *context, int thread_index, int n_threads)
{
    struct work *w = context;
    for (int i = thread_index; i < w->n_requests; i += n_threads) {
        int32_t bad_id;
        if (sample_one(w, i, thread_index, &bad_id) == SAMPLE_OK)
            continue;
        int smallest = __atomic_load_n(&w->failed_request, __ATOMIC_RELAXED);
        while (i < smallest && !__atomic_compare_exchange_n(&w->failed_request, &smallest, i, 0,
                                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        return;
    }
}

static enum status explain(const struct sample_request *requests, int index,
                           const struct sample_result *result, struct error *err)
{
    switch (result->outcome) {
    case SAMPLE_NAN:
        return error_set(err, STATUS_INVALID, "request %d: the logit of id %d is not a number",
                         index, result->id);
    case SAMPLE_NONE:
        return error_set(err, STATUS_INVALID,
                         "request %d: no allowed id has a logit above minus infinity", index);
    default:
        return error_set(err, STATUS_NOMEM, "request %d: no memory for %d logits", index,
                         requests[index].n);
    }
}

/* When a request failed on some thread, what it was is found out again here. */
static enum status sample_on_host(int32_t *ids, const struct sample_request *requests,
                                  int n_requests, struct stream *stream, struct error *err)
{
    enum code_path path = stream_code_path(stream);
    struct work work = {requests,     n_requests,      ids,
                        stream,       gumbel_of(path), bound_of(path),
                        kth_of(path), guide_of(path),  n_requests};
    if (n_requests == 1)
        sample_share(&work, 0, 1);
    else if (n_requests > 1)
        stream_parallel(stream, sample_share, &work);
    int failed = work.failed_request;
    if (failed == n_requests)
        return STATUS_OK;
    struct sample_result result = {.id = 0};
    result.outcome = (int32_t)sample_one(&work, failed, 0, &result.id);
    return explain(requests, failed, &result, err);
}

static enum status sample_on_device(int32_t *ids, const struct sample_request *requests,
                                    int n_requests, struct stream *stream, struct error *err)
{
    struct device *device = stream_device(stream);
    struct sample_result *results = calloc((size_t)n_requests, sizeof(*results));
    if (!results)
        return error_set(err, STATUS_NOMEM, "cannot allocate the results of %d draws", n_requests);
    enum status st = device->operations->sample(device, results, requests, n_requests);
    if (st == STATUS_INTERNAL) {
        st = stream_wait(stream, err); /* tells what it was */
        CHECK(st != STATUS_OK);
    } else if (st != STATUS_OK) {
        error_set(err, st, "the ids listed for a draw do not fit the device's table");
    }
    for (int i = 0; st == STATUS_OK && i < n_requests; i++) {
        if (results[i].outcome != SAMPLE_OK)
            st = explain(requests, i, &results[i], err);
        ids[i] = results[i].id;
    }
    free(results);
    return st;
}

/* What is wrong with the numbers of a request, before anything is drawn. */
static enum status check_request(const struct sample_request *r, int index, struct error *err)
{
    CHECK(r->n >= 1);
    CHECK(!r->listed || r->n_forbidden == 0);
    if (!(r->temperature >= 0) || isinf(r->temperature))
        return error_set(err, STATUS_INVALID,
                         "request %d: temperature is %g, expected a number of at least 0", index,
                         (double)r->temperature);
    if (r->unconditional && !isfinite(r->guidance))
        return error_set(err, STATUS_INVALID,
                         "request %d: guidance is %g, expected a finite number", index,
                         (double)r->guidance);
    for (int i = 0; r->listed && i < r->n_listed; i++)
        if (r->listed[i] < r->first_id || r->listed[i] - r->first_id >= r->n)
            return error_set(err, STATUS_INVALID, "request %d: id %d is not in %d..%d", index,
                             r->listed[i], r->first_id, r->first_id + r->n - 1);
    return STATUS_OK;
}

enum status sample(int32_t *ids, const struct sample_request *requests, int n_requests,
                   struct stream *stream, struct error *err)
{
    for (int i = 0; i < n_requests; i++) {
        enum status st = check_request(&requests[i], i, err);
        if (st != STATUS_OK)
            return st;
    }
    if (n_requests <= 0)
        return STATUS_OK;
    return stream_device(stream) ? sample_on_device(ids, requests, n_requests, stream, err)
                                 : sample_on_host(ids, requests, n_requests, stream, err);
}
