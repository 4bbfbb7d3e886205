/*
 * open_request.h - one request inside the engine, from engine_submit until its last event.
 *
 * Made by the caller's thread with copies of everything, then the engine's loop alone has it.
 * Out: events into the caller's mailbox.
 */
#ifndef MGPT_DAEMON_OPEN_REQUEST_H
#define MGPT_DAEMON_OPEN_REQUEST_H

#include "daemon/engine.h"
#include "model/ids.h"
#include "proto/message.h"

enum open_place { OPEN_NEW, OPEN_IN_PIPELINE, OPEN_AT_SIDE };

struct open_request {
    uint64_t id;
    struct engine_request request; /* its arrays belong to this struct */
    struct mailbox *replies;       /* held */
    enum open_place place;
    int pipeline;
    int n_losses; /* of its pipeline while it ran */
    bool lost;    /* ended by too many of them: `reason` says why */
    struct error reason;
    struct ids tokens;   /* generated so far */
    int n_told;          /* of them, brought by events */
    int row_tokens;      /* PICTURE: codes and new line of a row */
    float *probe_logits; /* [n_positions, vocab] */
    int vocab;
    int n_passes;
    int64_t submitted_ms, started_ms, first_token_ms, first_row_ms, last_token_ms;
    union {
        ProtobufCMessage base;
        Mgpt__Encode encode;
        Mgpt__Decode decode;
        Mgpt__Draw draw;
    } body; /* OPEN_AT_SIDE */
    Mgpt__Sampling draw_sampling;
    uint32_t *codes; /* of the Decode */
};

/* STATUS_INVALID: sides that have no codes, or more pixels than the engine takes. */
enum status open_request_check_picture(int width, int height, int pixels_max, struct error *err);

/* Checks what can be checked without the engine and copies. pixels_max: of a picture.
 * STATUS_INVALID, STATUS_NOMEM. */
enum status open_request_create(struct open_request **out, const struct engine_request *request,
                                struct mailbox *replies, int vocab, int pixels_max,
                                struct error *err);
void open_request_destroy(struct open_request *open); /* NULL is fine */

/* Fills `body` for a job beside the pipelines; type is what side_put() wants. */
enum message_type open_request_encode_body(struct open_request *open);
enum message_type open_request_draw_body(struct open_request *open);
/* codes: VQ codes of request.width x request.height. */
enum status open_request_decode_body(struct open_request *open, const int32_t *codes,
                                     size_t n_codes, struct error *err);

/* An event of this request with everything common filled in; the caller adds the rest and posts it.
 * NULL: no memory. */
struct engine_event *open_request_event(const struct open_request *open,
                                        enum engine_event_kind kind, int64_t now_ms);

/* Posts to the mailbox; an event that finds no reader is freed there. NULL is fine. */
void open_request_post(const struct open_request *open, struct engine_event *event);

/* The last event of a request that did not come to its end. */
void open_request_post_failed(const struct open_request *open, const struct error *err,
                              int64_t now_ms);

#endif
