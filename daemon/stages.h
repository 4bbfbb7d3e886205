/*
 * stages.h - the stage workers of one pipeline: start, load, link, and form anew when one is lost.
 *
 * In:      the cut (which units each stage serves), messages from the workers, the time.
 * Out:     `ready` when every stage holds its units for the present epoch and every hop was greeted
 * end to end. Stages that would compute other bits, or have NCCLs that do not fit, are refused with
 * words. Loss:    a stage that ends, refuses, or passes a deadline is started again; `epoch`
 * rises by one, the others keep their weights (Reset). Whoever sends plans sees the new epoch and
 * starts from number 1. Remote stages (stages_remote.h) wait for whoever comes; such a worker is
 * refused alone, where one of our own would be the end. Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_STAGES_H
#define MGPT_DAEMON_STAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/engine.h"
#include "daemon/kv_size.h"
#include "daemon/worker.h"
#include "proto/endpoint.h"
#include "scheduler/cut.h"

struct checkpoint;

enum { STAGE_FACT_BYTES = 256 };

struct stages_options {
    struct crew *crew;
    struct checkpoint *checkpoint; /* for the digests the workers must have; borrowed */
    int pipeline;                  /* index, for names */
    int n_stages;
    const bool *is_remote; /* [n_stages] filled by workers of other machines; copied; NULL: none */
    const char *link_host; /* where they reach this one; borrowed; needed after a remote stage */
    int first_local, n_local;    /* of all pipelines' stages here, for their shares of the cores */
    const struct cut_stage *cut; /* [n_stages] copied */
    Mgpt__Compute compute;
    enum engine_link link;
    int kv_blocks; /* 0: nothing is loaded before stages_choose_blocks() */
    int rows_max, sequences_max, outputs_max;
    int step_wait_ms, load_wait_ms;
};

/* What a stage said of itself when it was loaded. */
struct stage_facts {
    char units[UNITS_TEXT_BYTES];
    char digest[STAGE_FACT_BYTES];
    char fingerprint[STAGE_FACT_BYTES];
    uint64_t weight_bytes, kv_bytes, activation_bytes, resident_bytes, file_bytes;
    uint64_t workspace_bytes, recording_bytes, device_bytes, device_free_bytes,
        device_total_bytes; /* 0 on the CPU */
};

struct stage {
    struct worker worker;
    int first_unit, last_unit;
    bool asked_room, has_room; /* in this life: AskRoom was sent, Room came */
    struct kv_size_stage room;
    bool loading, loaded;       /* in this life */
    bool was_loaded;            /* in any */
    uint64_t asked_epoch;       /* of the last Load or Reset sent in this life */
    uint64_t epoch;             /* the stage said that it is ready for it */
    int64_t asked_ms;           /* when Load or Reset was sent */
    Mgpt__LinkKind loaded_link; /* as the last Load said */
    int linked_life;            /* life of the next stage that the link leads to; 0: none */
    int connecting_life;        /* Connect was sent, Connected has not come */
    int64_t connecting_ms;
    int64_t connect_ms;            /* Connect not before; 0: at once */
    char endpoint[ENDPOINT_BYTES]; /* where this stage takes activations */
    char link_key[64];
    char expected_digest[STAGE_FACT_BYTES]; /* empty until computed */
    struct stage_facts facts;
    uint64_t answered_number;              /* of the last plan it answered in this epoch */
    uint64_t busy_ns, wait_ns, link_bytes; /* sums over plans */
    int kv_blocks_used;
};

struct stages {
    struct stages_options options;
    int n;
    struct stage *list; /* [n] */
    uint64_t epoch;
    bool ready;
    bool was_ready;      /* at least once: from then on a refusal to load is a loss, not the end */
    bool failed;         /* no use to go on: the first load was refused */
    struct error reason; /* of the last loss, or of `failed` */
    struct error notice; /* what last kept a worker of another machine out; code 0: nothing */
};

enum status stages_init(struct stages *out, const struct stages_options *options,
                        struct error *err);
void stages_fini(struct stages *stages); /* kills what still runs; a zeroed struct is fine */

/* Does what is due: starts, Load, Reset, Connect, pings, deadlines. */
void stages_advance(struct stages *stages, int64_t now_ms);

/* A message of stage k's worker that is not about a plan. Takes nothing. */
void stages_on_message(struct stages *stages, int k, const struct message *message, int64_t now_ms);

/* Stage k is of no use any more (its process ended, it passed a deadline, it broke the protocol).
 */
void stages_lose(struct stages *stages, int k, int64_t now_ms, const char *why);

/* The same without a loss to tell of: the stage is as before its worker's start. */
void stages_forget(struct stages *stages, int k, int64_t now_ms,
                   char end[WORKER_PROCESS_END_BYTES]);

/*
 * Where nobody says how many KV blocks there shall be: when every stage has said hello, asks each
 * what it needs and what its memory has, once. True when all have answered: list[k].room.
 */
bool stages_ask_rooms(struct stages *stages, int64_t now_ms);
bool stages_have_greeted(const struct stages *stages);
void stages_choose_blocks(struct stages *stages, int kv_blocks);     /* loading begins */
void stages_give_up(struct stages *stages, const struct error *err); /* they cannot work at all */

/* What carries activations from stage k to the next: "nccl", "zmq", "" while there is no link. */
const char *stages_link_name(const struct stages *stages, int k);

/* Plans and stages do not agree any more: a new epoch, nobody is killed. */
void stages_begin_epoch(struct stages *stages, const char *why);

#endif
