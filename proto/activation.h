/*
 * activation.h - the frames between two stages: hidden states, and the greeting that proves a link.
 *
 * One frame a hop for every accepted plan, in order of the numbers. Multipart as frame.h: header,
 * payload; the payload is struct activation_header and then either hidden states [n_tokens, hidden]
 * or, when failed, a text of at most ERROR_TEXT_BYTES bytes, or what flag BESIDE says. Pure
 * encoding; sockets are worker/link_zmq.c's.
 */
#ifndef MGPT_PROTO_ACTIVATION_H
#define MGPT_PROTO_ACTIVATION_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

enum {
    FRAME_TYPE_ACTIVATION = 64,
    FRAME_TYPE_LINK_HELLO = 65, /* upstream -> downstream, an activation_header without rows */
    FRAME_TYPE_LINK_READY = 66, /* downstream -> upstream, the same header back */
    FRAME_TYPE_LINK_LOST = 67,  /* either way, failed: rows cannot go beside any more */
};

/* flags. FAILED: the plan failed before; the payload is text. BESIDE: the rows go another way
 * (NCCL); the payload is what that way needs: an offer in greetings, else the rows' ordinal. */
enum { ACTIVATION_FAILED = 1, ACTIVATION_BESIDE = 2 };

enum { ACTIVATION_BESIDE_BYTES_MAX = 512 };

/* Sent as it lies in memory, little endian. */
struct activation_header {
    uint64_t epoch;
    uint64_t number;   /* of the plan; 0 in greetings */
    uint32_t n_tokens; /* rows of the hidden states; 0 when failed */
    uint32_t hidden;
    uint16_t dtype; /* enum dtype */
    uint16_t flags;
    uint32_t status; /* enum status; not 0 exactly when failed */
};
_Static_assert(sizeof(struct activation_header) == 32,
               "activation_header is sent as it lies in memory");

/* Bytes of a frame's payload without and with its rows. */
size_t activation_bytes(uint32_t n_tokens, uint32_t hidden, enum dtype dtype);

/*
 * Reads a payload: *out is the header, *body what follows it (a view into bytes), *body_bytes its
 * size. STATUS_INVALID: too short, an unknown dtype, flag or status, a length that is not what the
 * header says, hidden or dtype other than expected.
 */
enum status activation_decode(struct activation_header *out, const void **body, size_t *body_bytes,
                              const void *bytes, size_t n_bytes, uint32_t hidden, enum dtype dtype,
                              struct error *err);

#endif
