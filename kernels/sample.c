/*
 * sample.c - from logits to tokens, each request on one thread.
 *
 * One pass gathers the allowed logits after guidance; the k-th largest is found by counting digits
 * (exact, no sorting); the noise is computed for the kept ones only, sixteen at a time.
 */
#include "kernels/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/gumbel.h"

enum { DIGIT_BITS = 11, N_DIGITS = 1 << DIGIT_BITS };

enum outcome { OUTCOME_OK, OUTCOME_NAN, OUTCOME_NONE, OUTCOME_LISTED, OUTCOME_NOMEM };

struct work {
    const struct sample_request *requests;
    int n_requests;
    int32_t *ids;
    struct stream *stream;
    gumbel_function gumbel;
    guide_function guide;
    int failed_request; /* the smallest that failed, or n_requests */
};

/* The gathered candidates; ids rise unless they were listed otherwise. */
struct candidates {
    float *logits;
    int32_t *ids;
    uint32_t *keys;
    int n;
    int32_t bad_id; /* an id with NaN, or a listed id out of range */
};

static float guided(const struct sample_request *r, int i)
{
    if (!r->unconditional)
        return r->logits[i];
    float u = r->unconditional[i];
    return u + r->guidance * (r->logits[i] - u);
}

static enum outcome gather_listed(struct candidates *c, const struct sample_request *r)
{
    for (int j = 0; j < r->n_listed; j++) {
        int64_t i = (int64_t)r->listed[j] - r->first_id;
        c->bad_id = r->listed[j];
        if (i < 0 || i >= r->n)
            return OUTCOME_LISTED;
        if (r->allowed && !r->allowed[i])
            continue;
        float logit = guided(r, (int)i);
        if (isnan(logit))
            return OUTCOME_NAN;
        c->logits[c->n] = logit + 0.0f;
        c->ids[c->n++] = r->listed[j];
    }
    return OUTCOME_OK;
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

static enum outcome gather_all(struct candidates *c, const struct sample_request *r,
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
    for (int i = 0; i < c->n && not_numbers; i++)
        if (isnan(c->logits[i])) {
            c->bad_id = c->ids[i];
            return OUTCOME_NAN;
        }
    return OUTCOME_OK;
}

/* Whole numbers in the order of the floats. */
static uint32_t order_key(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/* Counts a digit of all keys and returns the one that holds the k-th largest; *k becomes its rank
 * within the digit. */
static uint32_t find_digit(const uint32_t *keys, int n, int shift, int *k)
{
    uint32_t counts[2][N_DIGITS] = {{0}};
    const uint32_t mask = N_DIGITS - 1;
    for (int i = 0; i < n; i++)
        counts[i & 1][keys[i] >> shift & mask]++; /* two tables: neighbours often share a digit */
    uint32_t digit = N_DIGITS - 1;
    for (;; digit--) {
        int here = (int)(counts[0][digit] + counts[1][digit]);
        if (*k <= here)
            return digit;
        *k -= here;
    }
}

static int keep_digit(uint32_t *keys, int n, int shift, uint32_t digit)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        uint32_t key = keys[i];
        keys[kept] = key;
        kept += (key >> shift & (N_DIGITS - 1)) == digit;
    }
    return kept;
}

/* The key of the k-th largest logit: digits of 11, 11 and 10 bits from the top. */
static uint32_t kth_key(struct candidates *c, int k)
{
    int n = c->n;
    for (int i = 0; i < n; i++)
        c->keys[i] = order_key(c->logits[i]);
    for (int shift = 32 - DIGIT_BITS;; shift = shift > DIGIT_BITS ? shift - DIGIT_BITS : 0) {
        uint32_t digit = find_digit(c->keys, n, shift, &k);
        n = keep_digit(c->keys, n, shift, digit);
        if (shift == 0 || n == 1)
            return c->keys[0];
    }
}

static void keep_largest(struct candidates *c, int k)
{
    if (k < 1 || k >= c->n)
        return;
    uint32_t least = kth_key(c, k);
    int kept = 0;
    for (int i = 0; i < c->n; i++) {
        float logit = c->logits[i];
        c->logits[kept] = logit;
        c->ids[kept] = c->ids[i];
        kept += order_key(logit) >= least;
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

static struct best draw(const struct candidates *c, const struct sample_request *r,
                        gumbel_function gumbel)
{
    struct best best = {-INFINITY, INT32_MAX};
    const struct gumbel_place place = {{(uint32_t)r->seed, (uint32_t)(r->seed >> 32)},
                                       r->ordinal,
                                       r->picture_index,
                                       SAMPLE_DOMAIN_TOKEN};
    for (int i = 0; i < c->n; i += GUMBEL_LANES) {
        int32_t ids[GUMBEL_LANES] = {0};
        double noise[GUMBEL_LANES];
        int n = c->n - i < GUMBEL_LANES ? c->n - i : GUMBEL_LANES;
        memcpy(ids, c->ids + i, (size_t)n * sizeof(ids[0]));
        gumbel(noise, ids, &place);
        for (int j = 0; j < n; j++)
            offer(&best, (double)c->logits[i + j] / (double)r->temperature + noise[j], ids[j]);
    }
    return best;
}

static enum outcome sample_one(struct work *w, int index, int thread_index, int32_t *bad_id)
{
    const struct sample_request *r = &w->requests[index];
    size_t room = (size_t)(r->listed && r->n_listed > r->n ? r->n_listed : r->n) +
                  1; /* one past is written too */
    float *scratch = stream_scratch(w->stream, thread_index, 3 * room * sizeof(float));
    if (!scratch)
        return OUTCOME_NOMEM;
    struct candidates c = {.logits = scratch,
                           .ids = (int32_t *)(scratch + room),
                           .keys = (uint32_t *)(scratch + 2 * room)};
    enum outcome outcome = r->listed ? gather_listed(&c, r) : gather_all(&c, r, w->guide);
    *bad_id = c.bad_id;
    if (outcome != OUTCOME_OK)
        return outcome;
    struct best best;
    if (r->temperature == 0) {
        best = largest_logit(&c);
    } else {
        keep_largest(&c, r->top_k);
        best = draw(&c, r, w->gumbel);
    }
    if (best.value == -INFINITY)
        return OUTCOME_NONE;
    w->ids[index] = best.id;
    return OUTCOME_OK;
}

static void sample_share(void *context, int thread_index, int n_threads)
{
    struct work *w = context;
    for (int i = thread_index; i < w->n_requests; i += n_threads) {
        int32_t bad_id;
        if (sample_one(w, i, thread_index, &bad_id) == OUTCOME_OK)
            continue;
        int smallest = __atomic_load_n(&w->failed_request, __ATOMIC_RELAXED);
        while (i < smallest && !__atomic_compare_exchange_n(&w->failed_request, &smallest, i, 0,
                                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        return;
    }
}

/* The request failed on some thread; what it was is found out again here, where there is room for
 * the text. */
static enum status explain(struct work *w, int index, struct error *err)
{
    int32_t bad_id = 0;
    switch (sample_one(w, index, 0, &bad_id)) {
    case OUTCOME_NAN:
        return error_set(err, STATUS_INVALID, "request %d: the logit of id %d is not a number",
                         index, bad_id);
    case OUTCOME_LISTED:
        return error_set(err, STATUS_INVALID, "request %d: id %d is not in %d..%d", index, bad_id,
                         w->requests[index].first_id,
                         w->requests[index].first_id + w->requests[index].n - 1);
    case OUTCOME_NONE:
        return error_set(err, STATUS_INVALID,
                         "request %d: no allowed id has a logit above minus infinity", index);
    default:
        return error_set(err, STATUS_NOMEM, "request %d: no memory for %d logits", index,
                         w->requests[index].n);
    }
}

static enum status sample_on_host(int32_t *ids, const struct sample_request *requests,
                                  int n_requests, struct stream *stream, struct error *err)
{
    for (int i = 0; i < n_requests; i++) {
        CHECK(requests[i].n >= 1);
        if (!(requests[i].temperature >= 0) || isinf(requests[i].temperature))
            return error_set(err, STATUS_INVALID,
                             "request %d: temperature is %g, expected a number of at least 0", i,
                             (double)requests[i].temperature);
        if (requests[i].unconditional && !isfinite(requests[i].guidance))
            return error_set(err, STATUS_INVALID,
                             "request %d: guidance is %g, expected a finite number", i,
                             (double)requests[i].guidance);
    }
    enum code_path path = stream_code_path(stream);
    struct work work = {requests,        n_requests,     ids,       stream,
                        gumbel_of(path), guide_of(path), n_requests};
    if (n_requests == 1)
        sample_share(&work, 0, 1);
    else if (n_requests > 1)
        stream_parallel(stream, sample_share, &work);
    return work.failed_request < n_requests ? explain(&work, work.failed_request, err) : STATUS_OK;
}

/* A row of logits on its way to the host; requests may share one. */
static const float *fetch(float **next, const float *row, int n, struct stream *stream)
{
    float *host = *next;
    stream_download(stream, host, row, (size_t)n * sizeof(*host));
    *next += n;
    return host;
}

/* Logits lie in device memory. On CUDA they are fetched, and the draw is the host's: the same
 * function everywhere. */
enum status sample(int32_t *ids, const struct sample_request *requests, int n_requests,
                   struct stream *stream, struct error *err)
{
    if (!stream_device(stream))
        return sample_on_host(ids, requests, n_requests, stream, err);
    if (n_requests <= 0)
        return STATUS_OK;
    size_t n_floats = 0;
    for (int i = 0; i < n_requests; i++)
        n_floats += (size_t)requests[i].n * (requests[i].unconditional ? 2 : 1);
    float *logits = malloc(n_floats * sizeof(*logits)), *next = logits;
    struct sample_request *fetched = calloc((size_t)n_requests, sizeof(*fetched));
    enum status st = STATUS_NOMEM;
    for (int i = 0; logits && fetched && i < n_requests; i++) {
        const struct sample_request *r = &requests[i], *before = i > 0 ? &requests[i - 1] : NULL;
        fetched[i] = *r;
        bool is_same = before && before->logits == r->logits &&
                       before->unconditional == r->unconditional && before->n == r->n;
        fetched[i].logits = is_same ? fetched[i - 1].logits : fetch(&next, r->logits, r->n, stream);
        if (r->unconditional)
            fetched[i].unconditional = is_same ? fetched[i - 1].unconditional
                                               : fetch(&next, r->unconditional, r->n, stream);
    }
    if (logits && fetched)
        st = sample_on_host(ids, fetched, n_requests, stream, err);
    else
        error_set(err, st, "cannot allocate %zu logits", n_floats);
    free(logits);
    free(fetched);
    return st;
}
