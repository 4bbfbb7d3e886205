/*
 * stages_remote.h - what stages need when workers of other machines fill some of them: addresses
 * that neighbours can reach, places to be filled, and a worker that does not fit is sent away
 * without an end for the others.
 *
 * Owns:    nothing. Used by stages.c; the engine's loop asks for empty places and fills them.
 * Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_STAGES_REMOTE_H
#define MGPT_DAEMON_STAGES_REMOTE_H

#include "daemon/stages.h"

/* Whether stage k waits for a worker of another machine, and may have one now. */
bool stages_want_worker(const struct stages *stages, int k, int64_t now_ms);
void stages_admit(struct stages *stages, int k, const struct remote_worker *worker, int64_t now_ms);

/* Places for workers of other machines: in all, and those that nobody fills. */
int stages_n_remote(const struct stages *stages);
int stages_n_missing(const struct stages *stages);

/* The worker of stage k, which is remote, is of no use here and is told why; it ends. */
void stages_dismiss(struct stages *stages, int k, int64_t now_ms, enum status code,
                    const char *text);

/* Of two stages that do not fit, the one that is sent away: k, unless only the other is remote. */
int stages_victim(const struct stages *stages, int k, int other);

/* What tells whether two stages are on one machine: "" for this one, else an address. */
const char *stages_machine(const struct stages *stages, int k);

/* Where stage k shall listen for the stage before, with a free port. */
void stages_choose_bind(const struct stages *stages, int k, char endpoint[ENDPOINT_BYTES]);

/* The endpoint that a stage told, so that others can use it: a wildcard becomes its address. */
void stages_take_endpoint(struct stages *stages, int k, const char *told);

/* STATUS_INVALID: stage k cannot reach the endpoint of the next one; what to do. */
enum status stages_check_hop(const struct stages *stages, int k, struct error *err);

#endif
