/*
 * stage_role.h - the work of a `--role stage` worker: Load, Connect, Reset, plans in order,
 * activations in and out, Draw.
 *
 * In:      messages of the controller; frames of the stage before.
 * Out:     answers, results, frames to the next stage.
 * Owns:    the stage, both links, the queue of accepted plans.
 * Threads: the compute thread, which is the only thread that knows of sockets.
 *
 * Nothing in here blocks but kernels and reply_send(). A plan starts when it is the oldest and its
 * activations are there; when they do not come in Load.activation_ms, or a later frame comes first,
 * it fails and the failure is passed on.
 */
#ifndef MGPT_WORKER_STAGE_ROLE_H
#define MGPT_WORKER_STAGE_ROLE_H

#include <stdbool.h>

#include "kernels/stream.h"
#include "proto/message.h"

enum {
    STAGE_ROLE_ACTIVATION_MS = 60000, /* limit of waiting for activations when Load says 0 */
    STAGE_ROLE_GREETING_MS = 10000, /* limit of waiting for the next stage's answer to a greeting */
    STAGE_ROLE_NCCL_GREETING_MS = 35000, /* the same where NCCL forms first (LINK_NCCL_FORM_MS) */
    STAGE_ROLE_POLL_ITEMS = 2
};

struct stage_role;

struct stage_role_options {
    void *zmq;             /* context, borrowed */
    void *control;         /* the control socket, for answers; borrowed */
    const char *model_dir; /* borrowed */
    const char *link_bind; /* overrides Load.link_bind; NULL: as Load says */
    bool use_key;          /* CURVE on links */
    struct stream *stream; /* borrowed */
};

enum status stage_role_create(struct stage_role **out, const struct stage_role_options *options,
                              struct error *err);
void stage_role_destroy(struct stage_role *role); /* NULL is fine */

/*
 * Does what a message asks and answers it; may take it. Messages that are not for a stage are
 * refused. Returns anything but STATUS_OK only when the worker cannot go on (the controller takes
 * no answers).
 */
enum status stage_role_handle(struct stage_role *role, struct message *message, struct error *err);

/* Does what is due: looks at the links and runs at most one plan. Statuses as stage_role_handle().
 */
enum status stage_role_work(struct stage_role *role, struct error *err);

/* Milliseconds until work is due if no socket wakes us: 0 when it is due now; wait_max at most. */
int stage_role_wait_ms(const struct stage_role *role, int wait_max);

/* Sockets to poll beside the control socket; returns their number. */
int stage_role_poll_items(struct stage_role *role, zmq_pollitem_t items[STAGE_ROLE_POLL_ITEMS]);

#endif
