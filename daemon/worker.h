/*
 * worker.h - one worker as the engine sees it: its process, its place on the control socket, when
 * it was heard last.
 *
 * In:      Hello and every other message's arrival.   Out: messages to it, pings, restarts with
 * growing pauses. Owns:    the process. What the worker is for (a stage, pictures) is its user's
 * matter: stages.h, side.h. Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_WORKER_H
#define MGPT_DAEMON_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/crew.h"
#include "proto/message.h"

enum { WORKER_NAME_BYTES = 32, WORKER_DEVICE_BYTES = 32, WORKER_HOST_BYTES = 65 };

struct worker {
    struct crew *crew;
    char name[WORKER_NAME_BYTES];     /* "stage 0.1", "codec" */
    char device[WORKER_DEVICE_BYTES]; /* "cpu", "cuda:1" */
    Mgpt__Role role;
    cpu_set_t cpus;
    bool shares_device;    /* with another stage of its pipeline: NCCL must be told */
    uint32_t nccl_version; /* as its Hello said; 0: it cannot link stages by NCCL */
    char host[WORKER_HOST_BYTES];
    struct worker_process process;
    struct frame_peer peer; /* n_bytes 0 before Hello */
    int life;               /* counts starts, from 1 */
    int64_t started_ms, heard_ms, pinged_ms;
    int64_t restart_ms; /* not before; 0: at once */
    int n_quick_ends;   /* in a row, for the pauses */
    int n_restarts;     /* in all */
};

void worker_init(struct worker *worker, struct crew *crew, Mgpt__Role role, const char *name,
                 const cpu_set_t *cpus);

/* Where the crew has "cuda" without a number, the worker gets device `index`. */
void worker_take_device(struct worker *worker, int index);

/* Nothing runs and the pause is over: worker_start() may be called. */
bool worker_may_start(const struct worker *worker, int64_t now_ms);
enum status worker_start(struct worker *worker, int64_t now_ms, struct error *err);

/* Takes a Hello if it is from this worker's process. */
bool worker_greet(struct worker *worker, const struct frame_peer *peer, const Mgpt__Hello *hello,
                  int64_t now_ms);

/* Whether a message's sender is this worker in its present life; notes that it was heard. */
bool worker_is_peer(const struct worker *worker, const struct frame_peer *peer);

/* Never waits. STATUS_LOST: no Hello yet, gone, or it takes nothing any more (its queue is full).
 */
enum status worker_send(struct worker *worker, enum message_type type, const ProtobufCMessage *body,
                        struct error *err);

/* Sends a ping when one is due. */
void worker_tick(struct worker *worker, int64_t now_ms);

/* The process ends now, or has ended; sets the earliest next start. `end`: how it ended, or NULL.
 */
void worker_lose(struct worker *worker, int64_t now_ms, char end[WORKER_PROCESS_END_BYTES]);

/* Asks for the end, waits up to wait_ms, kills. */
void worker_stop(struct worker *worker);              /* sends Stop */
void worker_join(struct worker *worker, int wait_ms); /* waits, kills */

#endif
