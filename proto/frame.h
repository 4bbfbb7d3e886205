/*
 * frame.h - how bytes cross a ZeroMQ socket: a 16-byte versioned header, then one payload.
 *
 * In/out:  multiparts [peer identity, only on ROUTER sockets][struct frame_header][payload].
 * Owns:    nothing but the received payload, until frame_clear().
 * Threads: those of the socket: one at a time.
 *
 * A malformed multipart (missing or additional parts, a wrong magic, version or length, more bytes
 * than the type may have) is taken off the socket whole and reported as STATUS_INVALID; the socket
 * stays usable. Nothing here waits longer than the caller says.
 */
#ifndef MGPT_PROTO_FRAME_H
#define MGPT_PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "base/error.h"

enum {
    FRAME_MAGIC = 0x5450474d, /* "MGPT" */
    FRAME_VERSION = 1,
    FRAME_PEER_BYTES_MAX = 255,          /* ZeroMQ's own limit of an identity */
    FRAME_ADDRESS_BYTES = 64,            /* of a machine, in numbers; IPv6 with a zone fits */
    FRAME_PAYLOAD_BYTES_MAX = 256 << 20, /* message types have smaller limits (message.h) */
    FRAME_LINGER_MS = 500,         /* how long a closed socket keeps trying to send what waits */
    FRAME_QUEUE_MAX = 1024,        /* frames that wait in one socket, per peer and direction */
    FRAME_HEARTBEAT_MS = 2000,     /* between machines: libzmq's own pings, from its own thread */
    FRAME_SILENCE_MS_MAX = 10000,  /* without an answer to one: the connection ends */
    FRAME_HANDSHAKE_MS_MAX = 5000, /* between machines: from a connection to keys that fit */
};

/* Sent as it lies in memory, little endian. */
struct frame_header {
    uint32_t magic;         /* FRAME_MAGIC */
    uint16_t version;       /* FRAME_VERSION */
    uint16_t type;          /* enum message_type, or a link frame's type (activation.h) */
    uint64_t payload_bytes; /* of the part that follows */
};
_Static_assert(sizeof(struct frame_header) == 16, "frame_header is sent as it lies in memory");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frame_header is little endian");

/* A peer of a ROUTER socket, by its identity there. n_bytes 0: none. */
struct frame_peer {
    void *socket; /* the ROUTER it was heard on */
    size_t n_bytes;
    uint8_t bytes[FRAME_PEER_BYTES_MAX];
    char address[FRAME_ADDRESS_BYTES]; /* of its machine as seen from here; empty: not by TCP */
};

/* Whether both are the same identity on the same socket. */
bool frame_peer_equals(const struct frame_peer *a, const struct frame_peer *b);

struct frame {
    uint16_t type;
    size_t n_bytes;
    const void *bytes; /* view of the payload, until frame_clear(); NULL when n_bytes is 0 */
    zmq_msg_t part;    /* the payload's owner */
    bool has_part;
};

/* Checks a header alone. limit: the largest payload the caller takes. The error says what was found
 * and expected. */
enum status frame_check_header(const void *bytes, size_t n_bytes, size_t limit,
                               struct frame_header *out, struct error *err);

/*
 * Sends one frame; takes *payload (an initialized zmq_msg_t) in every case and leaves it closed.
 *
 * peer: NULL on sockets that are not ROUTER.  timeout_ms: 0 returns at once; never below 0.
 * STATUS_FULL: the socket's queue is full (timeout 0).  STATUS_TIMEOUT: it stayed full for
 * timeout_ms. STATUS_LOST: no such peer (ROUTER_MANDATORY).  STATUS_INVALID: payload above
 * FRAME_PAYLOAD_BYTES_MAX.
 */
enum status frame_send(void *socket, const struct frame_peer *peer, uint16_t type,
                       zmq_msg_t *payload, int timeout_ms, struct error *err);

/*
 * Receives one frame.
 *
 * peer: where to write the identity on ROUTER sockets; NULL otherwise. It is filled also for
 * malformed frames. STATUS_TIMEOUT: none came in timeout_ms (0: look only).  STATUS_INVALID: a
 * malformed one came and is gone. On every status but STATUS_OK *out is empty and needs no
 * frame_clear().
 */
enum status frame_receive(void *socket, struct frame_peer *peer, struct frame *out, int timeout_ms,
                          struct error *err);
void frame_clear(struct frame *frame); /* an empty frame is fine */

/*
 * Sets what every socket of the project has: ZMQ_LINGER, ZMQ_MAXMSGSIZE, high water marks of
 * FRAME_QUEUE_MAX, ZMQ_ROUTER_MANDATORY and ZMQ_ROUTER_HANDOVER on ROUTER sockets, TCP keep-alive,
 * IPv6. Call before bind or connect.
 */
enum status frame_configure_socket(void *socket, struct error *err);

/* More for a control socket between machines: heartbeats, a limit for handshakes, frames_bytes_max
 * instead of FRAME_PAYLOAD_BYTES_MAX. Call after frame_configure_socket(). */
enum status frame_configure_far_socket(void *socket, int frame_bytes_max, struct error *err);

#endif
