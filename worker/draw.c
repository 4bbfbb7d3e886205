/*
 * draw.c - the same requests as worker/stage_head.c makes, with seeds that count up.
 */
#include "worker/draw.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "proto/plan.h"
#include "worker/model_vocabulary.h"
#include "worker/token_sets.h"

enum { DRAWS_AT_ONCE = 64 };

struct draw {
    const char *model_dir; /* borrowed */
    struct stream *stream; /* borrowed */
    struct token_sets sets;
    float *logits; /* device memory [sets.vocab] */
    bool is_ready; /* all is made: at the first draw */
};

enum status draw_create(struct draw **out, const char *model_dir, struct stream *stream,
                        struct error *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return error_set(err, STATUS_NOMEM, "cannot allocate the sampler");
    (*out)->model_dir = model_dir;
    (*out)->stream = stream;
    return STATUS_OK;
}

void draw_destroy(struct draw *draw)
{
    if (!draw)
        return;
    stream_free(draw->stream, draw->logits, (size_t)draw->sets.vocab * sizeof(float));
    token_sets_fini(&draw->sets);
    free(draw);
}

static enum status get_ready(struct draw *draw, struct error *err)
{
    if (draw->is_ready)
        return STATUS_OK;
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/config.json", draw->model_dir) >= (int)sizeof(path))
        return error_set(err, STATUS_INVALID, "the path '%s' is too long", draw->model_dir);
    struct model_config config;
    struct vocabulary *vocabulary = NULL;
    enum status st = model_config_load(&config, path, err);
    if (st == STATUS_OK)
        st = model_vocabulary_load(&vocabulary, draw->model_dir, err);
    if (st == STATUS_OK)
        st = token_sets_init(&draw->sets, vocabulary, config.vocab, draw->stream, err);
    if (st == STATUS_OK)
        st = stream_alloc(draw->stream, (void **)&draw->logits,
                          (size_t)config.vocab * sizeof(float), err);
    if (st != STATUS_OK)
        token_sets_fini(&draw->sets);
    vocabulary_destroy(vocabulary);
    draw->is_ready = st == STATUS_OK;
    return st;
}

enum status draw_check(const Mgpt__Draw *message, struct error *err)
{
    const Mgpt__Sampling *sampling = message->sampling;
    if (!sampling)
        return error_set(err, STATUS_INVALID, "draw without sampling parameters");
    if (message->n_seeds == 0 || message->n_seeds > PLAN_DRAW_SEEDS_MAX)
        return error_set(err, STATUS_INVALID, "draw with %u seeds, expected 1 to %d",
                         message->n_seeds, PLAN_DRAW_SEEDS_MAX);
    if (message->set != MGPT__TOKEN_SET__SET_TEXT && message->set != MGPT__TOKEN_SET__SET_CODES)
        return error_set(err, STATUS_INVALID, "draw from set %d, expected text or codes",
                         (int)message->set);
    if (!isfinite(sampling->temperature) || sampling->temperature < 0)
        return error_set(err, STATUS_INVALID,
                         "draw with temperature %g, expected a finite number from 0",
                         (double)sampling->temperature);
    return STATUS_OK;
}

/* Draws seeds first .. first + n - 1 into ids. */
static enum status draw_some(struct draw *draw, const struct sample_request *request,
                             uint64_t first_seed, int n, uint32_t *ids, struct error *err)
{
    struct sample_request requests[DRAWS_AT_ONCE];
    int32_t drawn[DRAWS_AT_ONCE];
    for (int i = 0; i < n; i++) {
        requests[i] = *request;
        requests[i].seed = first_seed + (uint64_t)i;
    }
    enum status st = sample(drawn, requests, n, draw->stream, err);
    for (int i = 0; st == STATUS_OK && i < n; i++)
        ids[i] = (uint32_t)drawn[i];
    return st;
}

enum status draw_run(struct draw *draw, const Mgpt__Draw *message, uint32_t *ids, struct error *err)
{
    enum status st = draw_check(message, err);
    if (st == STATUS_OK)
        st = get_ready(draw, err);
    if (st != STATUS_OK)
        return st;
    size_t logits_bytes = (size_t)draw->sets.vocab * sizeof(float);
    if (message->logits.len != logits_bytes)
        return error_set(err, STATUS_INVALID, "%zu bytes of logits, a vocabulary of %d has %zu",
                         message->logits.len, draw->sets.vocab, logits_bytes);
    stream_upload(draw->stream, draw->logits, message->logits.data, logits_bytes);
    Mgpt__Output output = MGPT__OUTPUT__INIT;
    output.set = message->set;
    output.ordinal = message->ordinal;
    struct sample_request request;
    token_sets_request(&draw->sets, &output, message->sampling, &request);
    request.logits = draw->logits + request.first_id;
    request.guidance = 1;
    for (uint32_t i = 0; st == STATUS_OK && i < message->n_seeds; i += DRAWS_AT_ONCE) {
        uint32_t left = message->n_seeds - i;
        st = draw_some(draw, &request, message->first_seed + i,
                       left < DRAWS_AT_ONCE ? (int)left : DRAWS_AT_ONCE, ids + i, err);
    }
    return st;
}
