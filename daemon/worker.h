/*
 * worker.h - one worker as the engine sees it: its process, its place on the control socket, when
 * it was heard last. It was started here, or (is_remote) came in from another machine.
 *
 * In:      Hello and every other message's arrival.   Out: messages to it, pings, restarts with
 * growing pauses. Owns:    the process, if it is ours. What the worker is for (a stage, pictures)
 * is its user's matter: stages.h, side.h. Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_WORKER_H
#define MGPT_DAEMON_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/crew.h"
#include "daemon/remote.h"
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
    bool is_remote;         /* no process here: who fills the place comes by remote.h */
    int remote_pid;         /* on its machine */
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

/* Its process runs, or it is here from another machine. */
bool worker_is_alive(const struct worker *worker);

/* Of its process, wherever that runs; 0: none. */
int worker_pid(const struct worker *worker);

/* "this machine", or where it came from. */
const char *worker_place(const struct worker *worker);

/* Nothing runs and the pause is over: worker_start(), or for a remote one worker_admit(), may be
 * called. */
bool worker_may_start(const struct worker *worker, int64_t now_ms);
void worker_admit(struct worker *worker, const struct remote_worker *from, int64_t now_ms);
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

/* Sends a ping when one is due. STATUS_LOST: a remote one that is not connected any more. */
enum status worker_tick(struct worker *worker, int64_t now_ms);

/* The process ends now, or has ended; sets the earliest next start. `end`: how it ended, or NULL.
 * A remote one is forgotten; remote_tell() it before. */
void worker_lose(struct worker *worker, int64_t now_ms, char end[WORKER_PROCESS_END_BYTES]);

/* Asks for the end, waits up to wait_ms, kills. Remote ones live on. */
void worker_stop(struct worker *worker);              /* sends Stop */
void worker_join(struct worker *worker, int wait_ms); /* waits, kills */

#endif
