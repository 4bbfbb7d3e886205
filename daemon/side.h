/*
 * side.h - the worker beside the pipelines: pictures to codes and back (codec role), or draws from
 * given logits.
 *
 * In:      jobs, in order.   Out: one answer for each, by hooks.
 * Owns:    its worker, the line of jobs. A job's message belongs to whoever put it, until its hook
 * was called. Loss:    jobs that were sent are sent again, SIDE_TRIES_MAX times in all; then they
 * fail. Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_SIDE_H
#define MGPT_DAEMON_SIDE_H

#include "daemon/engine.h"
#include "daemon/worker.h"

enum {
    SIDE_JOBS_MAX = 4096,  /* waiting and sent; above every queue_max in use */
    SIDE_IN_FLIGHT_MAX = 2 /* sent at once: the next one lies ready when the worker is done */
};

struct side_hooks {
    void *context;
    /* Encoded, Decoded or Drawn, borrowed for the call. */
    void (*on_answer)(void *context, uint64_t id, const struct message *message);
    void (*on_failed)(void *context, uint64_t id, const struct error *err);
};

struct side_options {
    struct crew *crew;
    Mgpt__Role role; /* ROLE_STAGE does draws and is loaded with nothing */
    int load_wait_ms;
    int pixels_max; /* codec: of a picture */
    struct side_hooks hooks;
};

struct side_job {
    uint64_t id;
    enum message_type type;       /* MESSAGE_ENCODE, MESSAGE_DECODE, MESSAGE_DRAW */
    const ProtobufCMessage *body; /* its own id is `id` */
};

struct side;

enum status side_create(struct side **out, const struct side_options *options, struct error *err);
void side_destroy(struct side *side); /* NULL is fine; kills the worker, tells no hooks */

/* STATUS_FULL: SIDE_JOBS_MAX are open. */
enum status side_put(struct side *side, const struct side_job *job, struct error *err);

/* No hook is called for the job any more, and its body is not looked at again. Unknown ids are
 * ignored. */
void side_cancel(struct side *side, uint64_t id);

void side_run(struct side *side, int64_t now_ms);
bool side_on_message(struct side *side, const struct frame_peer *peer,
                     const struct message *message, int64_t now_ms);
void side_lose(struct side *side, int64_t now_ms, const char *why);

struct worker *side_worker(struct side *side);
bool side_ready(const struct side *side);
int side_n_jobs(const struct side *side);

/* Why the first load was refused; NULL as long as it was not. */
const struct error *side_failure(const struct side *side);

/* What the worker said when it was loaded. */
const struct engine_codec_stats *side_memory(const struct side *side);
uint64_t side_busy_ns(const struct side *side);

#endif
