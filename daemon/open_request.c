/*
 * open_request.c - copies requests in, makes events out of them.
 */
#include "daemon/open_request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/unirep.h"
#include "proto/plan.h"

enum { SEEDS_MAX = 1 << 22 };

/* dst = a copy of n items, or NULL for none. */
static bool copy_array(const void **dst, const void *src, size_t n, size_t item_bytes)
{
    *dst = NULL;
    if (n == 0)
        return true;
    void *copy = malloc(n * item_bytes);
    if (!copy)
        return false;
    memcpy(copy, src, n * item_bytes);
    *dst = copy;
    return true;
}

enum status open_request_check_picture(int width, int height, int pixels_max, struct error *err)
{
    int step = UNIREP_PATCH_PIXELS;
    if (width < step || height < step || width % step || height % step)
        return error_set(err, STATUS_INVALID,
                         "a picture is %dx%d, expected sides that are multiples of %d", width,
                         height, step);
    if ((int64_t)width * height > pixels_max || width > PLAN_PICTURE_SIDE_MAX ||
        height > PLAN_PICTURE_SIDE_MAX)
        return error_set(err, STATUS_INVALID,
                         "a picture is %dx%d, expected at most %d pixels and %d on a side (mgptd "
                         "--picture-max)",
                         width, height, pixels_max, PLAN_PICTURE_SIDE_MAX);
    return STATUS_OK;
}

static enum status check_request(const struct engine_request *request, int vocab, int pixels_max,
                                 struct error *err)
{
    switch (request->work) {
    case ENGINE_ENCODE:
    case ENGINE_DECODE:
    case ENGINE_PICTURE:
        return open_request_check_picture(request->width, request->height, pixels_max, err);
    case ENGINE_DRAW:
        if (request->n_seeds < 1 || request->n_seeds > SEEDS_MAX)
            return error_set(err, STATUS_INVALID, "%d seeds, expected 1 to %d", request->n_seeds,
                             SEEDS_MAX);
        return STATUS_OK;
    case ENGINE_PROBE:
        if (request->n_positions < 1 ||
            (size_t)request->n_positions > SIZE_MAX / sizeof(float) / (size_t)vocab)
            return error_set(err, STATUS_INVALID, "%d positions are asked for",
                             request->n_positions);
        return STATUS_OK;
    case ENGINE_FREE:
        break;
    }
    return STATUS_OK;
}

static size_t n_patches(const struct engine_request *request)
{
    return (size_t)(request->width / UNIREP_PATCH_PIXELS) *
           (size_t)(request->height / UNIREP_PATCH_PIXELS);
}

static bool copy_all(struct engine_request *to, const struct engine_request *from)
{
    bool encode = from->work == ENGINE_ENCODE;
    bool decode = from->work == ENGINE_DECODE;
    size_t pixels = encode ? (size_t)from->width * (size_t)from->height * 3 : 0;
    *to = *from;
    to->prompt = NULL, to->positions = NULL, to->rgb = NULL, to->codes = NULL, to->logits = NULL;
    return copy_array((const void **)&to->prompt, from->prompt, (size_t)from->n_prompt,
                      sizeof(*from->prompt)) &&
           copy_array((const void **)&to->positions, from->positions, (size_t)from->n_positions,
                      sizeof(*from->positions)) &&
           copy_array((const void **)&to->rgb, from->rgb, pixels, 1) &&
           copy_array((const void **)&to->codes, from->codes, decode ? n_patches(from) : 0,
                      sizeof(*from->codes)) &&
           copy_array((const void **)&to->logits, from->logits, (size_t)from->n_logits,
                      sizeof(*from->logits));
}

enum status open_request_create(struct open_request **out, const struct engine_request *request,
                                struct mailbox *replies, int vocab, int pixels_max,
                                struct error *err)
{
    *out = NULL;
    enum status st = check_request(request, vocab, pixels_max, err);
    if (st != STATUS_OK)
        return st;
    struct open_request *open = calloc(1, sizeof(*open));
    if (!open)
        return error_set(err, STATUS_NOMEM, "cannot allocate a request");
    open->replies = mailbox_hold(replies);
    open->vocab = vocab;
    open->row_tokens = request->width / UNIREP_PATCH_PIXELS + 1;
    bool copied = copy_all(&open->request, request);
    if (copied && request->work == ENGINE_PROBE) {
        open->probe_logits = calloc((size_t)request->n_positions * (size_t)vocab, sizeof(float));
        copied = open->probe_logits != NULL;
    }
    if (!copied) {
        open_request_destroy(open);
        return error_set(err, STATUS_NOMEM, "cannot allocate a request");
    }
    *out = open;
    return STATUS_OK;
}

void open_request_destroy(struct open_request *open)
{
    if (!open)
        return;
    mailbox_drop(open->replies);
    free((void *)(uintptr_t)open->request.prompt);
    free((void *)(uintptr_t)open->request.positions);
    free((void *)(uintptr_t)open->request.rgb);
    free((void *)(uintptr_t)open->request.codes);
    free((void *)(uintptr_t)open->request.logits);
    free(open->probe_logits);
    free(open->codes);
    ids_fini(&open->tokens);
    free(open);
}

enum message_type open_request_encode_body(struct open_request *open)
{
    const struct engine_request *request = &open->request;
    Mgpt__Encode *encode = &open->body.encode;
    mgpt__encode__init(encode);
    encode->id = open->id;
    encode->width = (uint32_t)request->width;
    encode->height = (uint32_t)request->height;
    encode->rgb.data = (uint8_t *)(uintptr_t)request->rgb;
    encode->rgb.len = (size_t)request->width * (size_t)request->height * 3;
    return MESSAGE_ENCODE;
}

enum message_type open_request_draw_body(struct open_request *open)
{
    const struct engine_request *request = &open->request;
    Mgpt__Draw *draw = &open->body.draw;
    mgpt__draw__init(draw);
    mgpt__sampling__init(&open->draw_sampling);
    open->draw_sampling.picture_index = request->sampling.picture_index;
    open->draw_sampling.temperature = request->sampling.temperature;
    open->draw_sampling.image_top_k = (uint32_t)request->sampling.image_top_k;
    open->draw_sampling.text_top_k = (uint32_t)request->sampling.text_top_k;
    open->draw_sampling.guidance = 1;
    draw->id = open->id;
    draw->logits.data = (uint8_t *)(uintptr_t)request->logits;
    draw->logits.len = (size_t)request->n_logits * sizeof(float);
    draw->first_seed = request->sampling.seed;
    draw->n_seeds = (uint32_t)request->n_seeds;
    draw->set = MGPT__TOKEN_SET__SET_CODES;
    draw->sampling = &open->draw_sampling;
    return MESSAGE_DRAW;
}

enum status open_request_decode_body(struct open_request *open, const int32_t *codes,
                                     size_t n_codes, struct error *err)
{
    const struct engine_request *request = &open->request;
    if (n_codes != n_patches(request))
        return error_set(err, STATUS_INVALID, "%zu codes for a picture of %dx%d, expected %zu",
                         n_codes, request->width, request->height, n_patches(request));
    open->codes = malloc(n_codes * sizeof(*open->codes));
    if (!open->codes)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu codes", n_codes);
    for (size_t i = 0; i < n_codes; i++)
        open->codes[i] = (uint32_t)codes[i];
    Mgpt__Decode *decode = &open->body.decode;
    mgpt__decode__init(decode);
    decode->id = open->id;
    decode->width = (uint32_t)request->width;
    decode->height = (uint32_t)request->height;
    decode->codes = open->codes;
    decode->n_codes = n_codes;
    return STATUS_OK;
}

static void destroy_event(struct mail *mail)
{
    struct engine_event *event = (struct engine_event *)(void *)mail;
    free(event->ids);
    free(event->logits);
    free(event->rgb);
    free(event);
}

struct engine_event *open_request_event(const struct open_request *open,
                                        enum engine_event_kind kind, int64_t now_ms)
{
    struct engine_event *event = calloc(1, sizeof(*event));
    if (!event)
        return NULL;
    event->mail.destroy = destroy_event;
    event->kind = kind;
    event->request = open->id;
    event->tag = open->request.tag;
    event->pipeline = open->pipeline;
    event->tokens_done = (int)open->tokens.n;
    event->eta_s = -1;
    event->n_passes = open->n_passes;
    event->submitted_ms = open->submitted_ms;
    event->started_ms = open->started_ms;
    event->first_token_ms = open->first_token_ms;
    event->now_ms = now_ms;
    event->width = open->request.width;
    event->height = open->request.height;
    if (open->request.work == ENGINE_PICTURE) {
        struct picture_size size = {open->request.width, open->request.height};
        event->tokens_total = (int)unirep_length(size) - 3;
        event->rows_done = (int)open->tokens.n / open->row_tokens;
    }
    return event;
}

void open_request_post(const struct open_request *open, struct engine_event *event)
{
    /* A reader that went away closed its box: the event is freed there. */
    if (event)
        mailbox_post(open->replies, &event->mail);
}

void open_request_post_failed(const struct open_request *open, const struct error *err,
                              int64_t now_ms)
{
    struct engine_event *event = open_request_event(open, ENGINE_EVENT_FAILED, now_ms);
    if (!event)
        return;
    event->error = *err;
    open_request_post(open, event);
}
