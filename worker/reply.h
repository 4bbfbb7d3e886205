/*
 * reply.h - answers of a worker to its controller, each with one bounded wait.
 */
#ifndef MGPT_WORKER_REPLY_H
#define MGPT_WORKER_REPLY_H

#include "proto/message.h"

enum {
    REPLY_SEND_MS = 10000 /* a controller whose queue stays full for so long is taken for lost */
};

/* STATUS_LOST: the controller does not take it. */
enum status reply_send(void *socket, enum message_type type, const ProtobufCMessage *body,
                       struct error *err);

/* What could not be done, and why: to message `type`, or to a plan or job by its numbers (0 for
 * none). */
enum status reply_failure(void *socket, enum message_type type, uint64_t epoch, uint64_t number,
                          const struct error *why, struct error *err);

/* Bytes of this process in memory now, as the system counts them; 0 when it does not say. */
size_t reply_resident_bytes(void);

#endif
