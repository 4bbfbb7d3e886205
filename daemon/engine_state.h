/*
 * engine_state.h - the engine's inside, shared by engine.c (the door), engine_loop.c (the thread),
 * engine_room.c (KV blocks), engine_work.c (requests) and engine_remote.c (workers of other
 * machines).
 *
 * Behind `lock` lies what callers and the loop both touch; everything else is the loop's alone once
 * the thread runs.
 */
#ifndef MGPT_DAEMON_ENGINE_STATE_H
#define MGPT_DAEMON_ENGINE_STATE_H

#include <pthread.h>
#include <zmq.h>

#include "daemon/crew.h"
#include "daemon/engine.h"
#include "daemon/open_request.h"
#include "daemon/pipeline.h"
#include "daemon/remote_places.h"
#include "daemon/side.h"

enum engine_mail_kind {
    ENGINE_MAIL_SUBMIT,
    ENGINE_MAIL_CANCEL,
    ENGINE_MAIL_STOP,
    ENGINE_MAIL_QUIT
};

/* What callers put into the loop's mailbox. */
struct engine_mail {
    struct mail mail;
    enum engine_mail_kind kind;
    uint64_t id;         /* CANCEL */
    int64_t deadline_ms; /* STOP */
    int n;
    struct open_request *requests[ENGINE_BATCH_MAX]; /* SUBMIT: owned until the loop takes them */
};

struct engine {
    struct engine_options options;
    struct cut_stage cut[ENGINE_STAGES_MAX]; /* [options.n_stages] of every pipeline */
    struct crew crew;
    struct mailbox *box;
    pthread_t thread;
    bool thread_runs;

    /* the loop's */
    int n_pipelines;
    struct pipeline *pipelines[ENGINE_PIPELINES_MAX];
    struct side *codec, *draws;
    struct remote_places remote_places;
    struct remote *remote; /* NULL: every stage runs here */
    char link_host[ENDPOINT_HOST_BYTES];
    int n_missing_logged;       /* empty places of remote workers, when the log last told */
    struct open_request **open; /* [queue_max] */
    int n_open;
    zmq_pollitem_t *items; /* [items_max] */
    int items_max;
    bool has_blocks; /* the number of KV blocks is known; until then requests wait as OPEN_NEW */
    bool quit;
    int64_t stop_deadline_ms; /* 0: not stopping */
    int64_t last_token_ms;    /* or when work began after a time without */
    bool working;
    struct engine_stats figures; /* counters; fill_figures() adds the rest */

    /* behind the lock */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* monotonic clock */
    bool ready, failed, stopping, drained;
    struct error failure;
    int n_promised; /* submitted and not ended */
    uint64_t next_id;
    uint64_t n_refused;
    struct engine_stats *published; /* with room for all stages */
};

/* The thread. */
void *engine_loop(void *engine);

/* What engine_stats() gives; on the loop's thread, and once before it runs. */
void engine_publish(struct engine *engine, int64_t now_ns);

/* engine_room.c: true when the number of KV blocks was chosen; called until then. */
bool engine_choose_blocks(struct engine *engine, int64_t now_ms);

/* engine_work.c: all on the loop's thread. */
void engine_take_mail(struct engine *engine, struct engine_mail *mail, int64_t now_ns);
void engine_place_waiting(struct engine *engine, int64_t now_ns); /* has_blocks became true */
void engine_take_events(struct engine *engine, struct pipeline *pipeline, int64_t now_ns);
void engine_fail_all(struct engine *engine, const struct error *err, int64_t now_ms);

/* engine_remote.c. open: before the pipelines are made, with the crew; the rest on the loop's
 * thread. */
enum status engine_open_remote(struct engine *engine, struct error *err);
void engine_deal_places(struct engine *engine, int64_t now_ms);
void engine_remote_message(struct engine *engine, const struct frame_peer *peer,
                           const struct message *message);
void engine_dismiss_all(struct engine *engine, const struct error *err, int64_t now_ms);
void engine_fill_remote(const struct engine *engine, struct engine_stats *out);
extern const struct side_hooks engine_side_hooks;         /* context to be set */
extern const struct pipeline_hooks engine_pipeline_hooks; /* context to be set */

#endif
