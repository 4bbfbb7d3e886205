/*
 * request.c - checks at the door, and the token state of one request; see request.h.
 *
 * Positions: the last code of a picture and the forced tokens behind it are never fed when nothing
 * follows, so a picture request of n tokens in all takes n - 3 positions.
 */
#include "scheduler/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum {
    UNFED_TOKENS = 3, /* of a picture request: the last code, its new line, the end */
    TOP_K_MAX = 1 << 20,
    MAX_TOKENS_MAX = 1 << 20
};

static enum status check_sampling(const struct plan_sampling *sampling, struct error *err)
{
    if (!isfinite(sampling->temperature) || sampling->temperature < 0)
        return error_set(err, STATUS_INVALID, "temperature %g, expected 0 or above",
                         (double)sampling->temperature);
    if (!isfinite(sampling->guidance))
        return error_set(err, STATUS_INVALID, "guidance is not a finite number");
    if (sampling->image_top_k < 0 || sampling->image_top_k > TOP_K_MAX)
        return error_set(err, STATUS_INVALID, "image top-k %d, expected 0 to %d",
                         sampling->image_top_k, TOP_K_MAX);
    if (sampling->text_top_k < 0 || sampling->text_top_k > TOP_K_MAX)
        return error_set(err, STATUS_INVALID, "text top-k %d, expected 0 to %d",
                         sampling->text_top_k, TOP_K_MAX);
    return STATUS_OK;
}

static enum status check_ids(const char *what, const int32_t *ids, int n, int vocab,
                             struct error *err)
{
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab)
            return error_set(err, STATUS_INVALID, "%s token %d is id %d, expected 0 to %d", what, i,
                             ids[i], vocab - 1);
    }
    return STATUS_OK;
}

static enum status check_spec(const struct scheduler_request *spec,
                              const struct request_limits *limits, struct error *err)
{
    if (spec->mode != SCHEDULER_PICTURE && spec->mode != SCHEDULER_FREE &&
        spec->mode != SCHEDULER_PROBE)
        return error_set(err, STATUS_INVALID, "mode %d of a request is not known", (int)spec->mode);
    if (spec->n_prompt < 1 || spec->n_prompt > SCHEDULER_PROMPT_MAX)
        return error_set(err, STATUS_INVALID, "a prompt of %d tokens, expected 1 to %d",
                         spec->n_prompt, SCHEDULER_PROMPT_MAX);
    if (spec->n_prompt > limits->max_positions)
        return error_set(err, STATUS_UNSUPPORTED,
                         "a prompt of %d tokens, the model has %d positions", spec->n_prompt,
                         limits->max_positions);
    if (spec->n_generated < 0 || spec->n_generated > SCHEDULER_PROMPT_MAX)
        return error_set(err, STATUS_INVALID, "%d tokens generated before, expected 0 to %d",
                         spec->n_generated, SCHEDULER_PROMPT_MAX);
    if (spec->chunk < 0)
        return error_set(err, STATUS_INVALID, "prefill in chunks of %d tokens, expected 0 or more",
                         spec->chunk);
    enum status st = check_ids("prompt", spec->prompt, spec->n_prompt, limits->vocab, err);
    if (st == STATUS_OK && spec->mode != SCHEDULER_PROBE)
        st = check_ids("generated", spec->generated, spec->n_generated, limits->vocab, err);
    if (st == STATUS_OK && spec->mode != SCHEDULER_PROBE)
        st = check_sampling(&spec->sampling, err);
    return st;
}

/* Tokens are fed up to the last position that is asked for. */
static enum status init_probe(struct request *r, const struct scheduler_request *spec,
                              const struct request_limits *limits, struct error *err)
{
    if (spec->n_generated > 0)
        return error_set(err, STATUS_INVALID, "a probe of logits has no generated tokens");
    if (spec->n_positions < 1 || spec->n_positions > spec->n_prompt)
        return error_set(err, STATUS_INVALID, "%d positions to probe in a prompt of %d tokens",
                         spec->n_positions, spec->n_prompt);
    for (int i = 0; i < spec->n_positions; i++) {
        int before = i ? spec->positions[i - 1] : -1;
        if (spec->positions[i] <= before || spec->positions[i] >= spec->n_prompt)
            return error_set(
                err, STATUS_INVALID,
                "position %d at place %d of the list, expected %d to %d in rising order",
                spec->positions[i], i, before + 1, spec->n_prompt - 1);
    }
    r->positions = malloc((size_t)spec->n_positions * sizeof(int));
    if (!r->positions)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d positions", spec->n_positions);
    memcpy(r->positions, spec->positions, (size_t)spec->n_positions * sizeof(int));
    r->n_positions = spec->n_positions;
    r->n_tokens = spec->positions[spec->n_positions - 1] + 1;
    r->n_prompt = r->n_tokens;
    int blocks = request_blocks(r->n_tokens);
    if (blocks > limits->kv_blocks)
        return error_set(err, STATUS_UNSUPPORTED,
                         "a prompt of %d tokens takes %d cache blocks, the pool has %d",
                         r->n_tokens, blocks, limits->kv_blocks);
    return STATUS_OK;
}

/* The grammar after the prompt. A prompt of pictures and text may break it only by our caller's
 * fault. */
static enum status push_prompt(struct request *r, struct error *err)
{
    for (int i = 0; i < r->n_prompt; i++) {
        enum status st = unirep_push(&r->grammar, r->tokens[i], err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "prompt token %d", i);
    }
    return STATUS_OK;
}

/* Opens the unconditional sequence when guidance counts from here on. */
static void open_unconditional(struct request *r)
{
    bool counts = r->guided && (r->grammar.next == UNIREP_CODE || r->grammar.next == UNIREP_FORCED);
    if (!counts || r->has_unconditional)
        return;
    r->has_unconditional = true;
    r->unconditional = (struct sequence){.base = r->n_tokens - r->grammar.n_picture_tokens};
}

/* The tokens a FREE request can come to: by its own limit, the positions, and the pool when it were
 * alone. */
static int free_capacity(const struct scheduler_request *spec, const struct request_limits *limits,
                         bool guided)
{
    int64_t most = (int64_t)spec->n_prompt + spec->max_tokens;
    if (most > limits->max_positions)
        most = limits->max_positions;
    /* Its pictures cannot be longer than what is generated, so this bounds the second sequence as
     * well. */
    while (most > spec->n_prompt &&
           request_blocks(most) +
                   (guided ? request_blocks(most - spec->n_prompt + UNFED_TOKENS) : 0) >
               limits->kv_blocks)
        most -= most % PLAN_BLOCK_TOKENS ? most % PLAN_BLOCK_TOKENS : PLAN_BLOCK_TOKENS;
    return most > spec->n_prompt ? (int)most : spec->n_prompt;
}

static enum status init_free(struct request *r, const struct scheduler_request *spec,
                             const struct request_limits *limits, struct error *err)
{
    if (spec->max_tokens < 1 || spec->max_tokens > MAX_TOKENS_MAX)
        return error_set(err, STATUS_INVALID, "at most %d tokens to generate, expected 1 to %d",
                         spec->max_tokens, MAX_TOKENS_MAX);
    r->capacity = free_capacity(spec, limits, r->guided);
    if (r->capacity <= spec->n_prompt)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "a prompt of %d tokens leaves no room to answer: %d positions, %d cache blocks",
            spec->n_prompt, limits->max_positions, limits->kv_blocks);
    int64_t open = unirep_tokens_left(&r->grammar);
    bool impossible = r->grammar.next == UNIREP_HEIGHT
                          ? r->capacity - spec->n_prompt < UNIREP_TOKENS_MIN - 1
                          : open > r->capacity - spec->n_prompt;
    if (impossible)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the open picture of the prompt does not fit into the %d tokens left",
                         r->capacity - spec->n_prompt);
    return STATUS_OK;
}

static enum status init_picture(struct request *r, const struct scheduler_request *spec,
                                const struct request_limits *limits, struct error *err)
{
    if (r->grammar.next != UNIREP_CODE || r->grammar.n_picture_tokens != UNIREP_FRAME_TOKENS - 1)
        return error_set(err, STATUS_INVALID,
                         "the prompt of a picture must end with its start, height and width token");
    int64_t all = spec->n_prompt + unirep_tokens_left(&r->grammar);
    int64_t positions = all - UNFED_TOKENS;
    if (positions > limits->max_positions)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "a prompt of %d tokens and a picture of %dx%d take %lld positions, the model has %d",
            spec->n_prompt, r->grammar.width, r->grammar.height, (long long)positions,
            limits->max_positions);
    int64_t second = r->guided ? positions - spec->n_prompt + UNIREP_FRAME_TOKENS - 1 : 0;
    int blocks = request_blocks(positions) + request_blocks(second);
    if (blocks > limits->kv_blocks)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "a picture of %dx%d takes %d cache blocks with this prompt, the pool has %d",
            r->grammar.width, r->grammar.height, blocks, limits->kv_blocks);
    r->capacity = (int)all;
    return STATUS_OK;
}

bool request_push(struct request *r, int32_t id, struct sequence *closed)
{
    *closed = (struct sequence){0};
    r->n_fresh = 0;
    do {
        CHECK(r->n_tokens < r->capacity);
        CHECK(unirep_push(&r->grammar, id, NULL) == STATUS_OK);
        r->tokens[r->n_tokens++] = id;
        r->n_fresh++;
        id = unirep_forced(&r->grammar);
    } while (id >= 0);
    int32_t newest = r->tokens[r->n_tokens - 1];
    bool picture_ended =
        r->grammar.n_picture_tokens == 0 && newest == r->grammar.vocabulary->image_end;
    if (picture_ended && r->has_unconditional) {
        *closed = r->unconditional;
        r->unconditional = (struct sequence){0};
        r->has_unconditional = false;
    }
    open_unconditional(r);
    if (r->mode == SCHEDULER_PICTURE) {
        r->finish = SCHEDULER_COMPLETE;
        return r->grammar.n_picture_tokens == 0;
    }
    bool turn_ended =
        r->grammar.next == UNIREP_TEXT && newest == r->grammar.vocabulary->end_of_turn;
    r->finish = turn_ended ? SCHEDULER_END_OF_TURN : SCHEDULER_LENGTH;
    return turn_ended || r->n_tokens == r->capacity;
}

/* Tokens of an earlier life. Forced ones may be missing at their end, where the log was cut. */
static enum status push_generated(struct request *r, const struct scheduler_request *spec,
                                  int vocab, struct error *err)
{
    for (int i = 0; i < spec->n_generated;) {
        if (r->state == REQUEST_ENDED)
            return error_set(err, STATUS_INVALID,
                             "%d tokens generated before, the request ends at %d",
                             spec->n_generated, i);
        if (!request_allows(r, vocab, spec->generated[i]))
            return error_set(err, STATUS_INVALID,
                             "generated token %d is id %d, which cannot stand there", i,
                             spec->generated[i]);
        struct sequence closed;
        int before = r->n_tokens;
        if (request_push(r, spec->generated[i], &closed)) {
            r->state = REQUEST_ENDED;
            r->ending = SCHEDULER_FINISHED;
        }
        for (; before < r->n_tokens && i < spec->n_generated; before++, i++) {
            if (r->tokens[before] != spec->generated[i])
                return error_set(err, STATUS_INVALID, "generated token %d is id %d, expected %d", i,
                                 spec->generated[i], r->tokens[before]);
        }
    }
    r->n_fresh = 0;
    return STATUS_OK;
}

static enum status init_tokens(struct request *r, const struct scheduler_request *spec,
                               const struct request_limits *limits, struct error *err)
{
    unirep_init(&r->grammar, limits->vocabulary);
    r->n_prompt = r->n_tokens = r->capacity = spec->n_prompt;
    r->tokens = malloc((size_t)spec->n_prompt * sizeof(int32_t));
    if (!r->tokens)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d prompt tokens", spec->n_prompt);
    memcpy(r->tokens, spec->prompt, (size_t)spec->n_prompt * sizeof(int32_t));
    if (r->mode == SCHEDULER_PROBE)
        return init_probe(r, spec, limits, err);
    enum status st = push_prompt(r, err);
    if (st == STATUS_OK)
        st = r->mode == SCHEDULER_PICTURE ? init_picture(r, spec, limits, err)
                                          : init_free(r, spec, limits, err);
    if (st != STATUS_OK)
        return st;
    int32_t *grown = realloc(r->tokens, (size_t)r->capacity * sizeof(int32_t));
    if (!grown)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d tokens", r->capacity);
    r->tokens = grown;
    if (unirep_forced(&r->grammar) >= 0)
        return error_set(err, STATUS_INVALID,
                         "the prompt ends before a forced token of its picture");
    open_unconditional(r);
    return push_generated(r, spec, limits->vocab, err);
}

enum status request_create(struct request **out, const struct scheduler_request *spec,
                           const struct request_limits *limits, struct error *err)
{
    *out = NULL;
    enum status st = check_spec(spec, limits, err);
    if (st != STATUS_OK)
        return st;
    struct request *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set(err, STATUS_NOMEM, "cannot allocate a request");
    r->id = spec->id;
    r->mode = spec->mode;
    r->priority = spec->priority;
    r->chunk = spec->chunk;
    r->sampling = spec->sampling;
    r->guided = spec->mode != SCHEDULER_PROBE && spec->sampling.guidance != 1.0f;
    r->slot = -1;
    st = init_tokens(r, spec, limits, err);
    if (st != STATUS_OK) {
        request_destroy(r);
        return st;
    }
    r->started_ns = -1;
    r->blocks_final = request_blocks_final(r);
    *out = r;
    return STATUS_OK;
}

void request_destroy(struct request *r)
{
    if (!r)
        return;
    free(r->tokens);
    free(r->positions);
    free(r);
}

int request_need(const struct request *r, const struct sequence *sequence)
{
    return r->n_tokens - sequence->base - sequence->n_fed;
}

bool request_is_ready(const struct request *r)
{
    return r->state == REQUEST_RUNNING && !r->awaits_draw && request_need(r, &r->conditional) > 0;
}

/* Tokens that can still be generated. */
static int64_t n_left(const struct request *r)
{
    return r->capacity - r->n_tokens;
}

static int compare_ids(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

void request_describe_draw(const struct request *r, struct plan_output *output, int32_t *listed)
{
    output->kind = PLAN_DRAW;
    output->ordinal = request_n_generated(r);
    output->listed = listed;
    output->n_listed = 0;
    switch (r->grammar.next) {
    case UNIREP_TEXT:
        output->set = PLAN_SET_TEXT;
        if (!unirep_may_open(&r->grammar, n_left(r)))
            listed[output->n_listed++] = r->grammar.vocabulary->image_start;
        return;
    case UNIREP_HEIGHT:
    case UNIREP_WIDTH:
        output->set = PLAN_SET_LISTED;
        output->n_listed = unirep_list_sizes(&r->grammar, n_left(r), 0, listed);
        /* They come by size; the ids of other vocabularies need not rise with it. */
        qsort(listed, (size_t)output->n_listed, sizeof(int32_t), compare_ids);
        return;
    case UNIREP_CODE:
        output->set = PLAN_SET_CODES;
        return;
    case UNIREP_FORCED:
        break;
    }
    CHECK(!"a forced token is never drawn");
}

bool request_allows(const struct request *r, int vocab, int32_t id)
{
    const struct vocabulary *vocabulary = r->grammar.vocabulary;
    if (id < 0 || id >= vocab)
        return false;
    if (r->grammar.next == UNIREP_CODE)
        return vocabulary_code(vocabulary, id) >= 0;
    if (r->grammar.next == UNIREP_TEXT)
        return vocabulary_code(vocabulary, id) < 0 &&
               (id != vocabulary->image_start || unirep_may_open(&r->grammar, n_left(r)));
    /* Of the size tokens: whether the smallest picture of this side still fits. */
    int pixels = vocabulary_size_pixels(vocabulary, id);
    if (pixels == 0)
        return false;
    struct picture_size size = {.width = VOCABULARY_SIZE_PIXELS, .height = pixels};
    if (r->grammar.next == UNIREP_WIDTH)
        size = (struct picture_size){.width = pixels, .height = r->grammar.height};
    return unirep_length(size) - r->grammar.n_picture_tokens <= n_left(r);
}

void request_forget_cache(struct request *r)
{
    r->conditional = (struct sequence){0};
    int base = r->unconditional.base;
    r->unconditional = (struct sequence){.base = base};
    r->n_fresh = 0;
    r->planned = 0;
}

int request_tokens_total(const struct request *r)
{
    return r->mode == SCHEDULER_PROBE ? 0 : r->capacity - r->n_prompt;
}

/* Of the open picture of a PICTURE request: tokens of a row, tokens so far in all rows, rows. */
static void picture_progress(const struct request *r, int *row_tokens, int *done, int *rows)
{
    *row_tokens = r->grammar.width / UNIREP_PATCH_PIXELS + 1;
    *rows = r->grammar.height / UNIREP_PATCH_PIXELS;
    *done = r->grammar.n_picture_tokens - (UNIREP_FRAME_TOKENS - 1);
}

int request_rounds_left(const struct request *r)
{
    if (r->mode == SCHEDULER_PROBE || r->state == REQUEST_ENDED)
        return 0;
    if (r->mode == SCHEDULER_FREE)
        return r->capacity - r->n_tokens;
    int row_tokens, done, rows;
    picture_progress(r, &row_tokens, &done, &rows);
    return (row_tokens - 1) * rows - (done - done / row_tokens);
}

/* Positions of the conditional sequence at the request's end. */
static int final_positions(const struct request *r)
{
    if (r->mode == SCHEDULER_PICTURE)
        return r->capacity - UNFED_TOKENS;
    return r->capacity;
}

static int blocks_at(const struct request *r, int64_t n_tokens)
{
    int64_t last = final_positions(r);
    int64_t first = n_tokens < last ? n_tokens : last;
    int blocks = request_blocks(first);
    if (r->has_unconditional)
        blocks += request_blocks(first - r->unconditional.base);
    return blocks;
}

int request_blocks_after(const struct request *r, int rounds)
{
    int64_t grown = (int64_t)r->n_tokens + rounds;
    if (r->mode == SCHEDULER_PICTURE) {
        int row_tokens, done, rows;
        picture_progress(r, &row_tokens, &done, &rows);
        grown += rounds / (row_tokens - 1) + 1;
    }
    return blocks_at(r, grown);
}

int request_blocks_final(const struct request *r)
{
    return blocks_at(r, r->capacity);
}
