/*
 * remote.h - the door for workers of other machines: who may come in, and who waits for a place.
 *
 * In:      connections to --worker-listen, Hellos.
 * Out:     workers, in the order in which they came; words for those that are refused.
 * Owns:    a ROUTER socket with CURVE, the line of those who wait.
 * Threads: the engine's loop alone.
 *
 * A client gets as far as a message only with a key pair whose public half is a `worker` line of
 * the key file; libzmq asks for each (ZAP). Connections that show no key end after
 * FRAME_HANDSHAKE_MS_MAX, and what comes beyond REMOTE_CONNECTIONS_SPARE more than places is cut
 * off at once. So strangers cost a bounded number of descriptors and bytes, and touch nobody who is
 * in.
 */
#ifndef MGPT_DAEMON_REMOTE_H
#define MGPT_DAEMON_REMOTE_H

#include <stdint.h>
#include <zmq.h>

#include "proto/message.h"

enum {
    REMOTE_CONNECTIONS_SPARE = 64,    /* beyond one for each place */
    REMOTE_WAITING_MAX = 64,          /* workers without a place */
    REMOTE_FRAME_BYTES_MAX = 4 << 20, /* of what they send: results without logits */
    REMOTE_SILENCE_MS = 30 * 1000,    /* a waiting one that answers no pings is forgotten */
    REMOTE_COMPLAINT_MS = 10 * 1000,  /* between two lines about the same kind of stranger */
    REMOTE_EVENTS_MAX = 256,          /* of connections, taken in one go */
    REMOTE_POLL_ITEMS = 3,
    REMOTE_TEXT_BYTES = 65 /* of what a worker says of its host, device and path */
};

struct remote_options {
    void *context;        /* ZeroMQ's, borrowed */
    const char *listen;   /* HOST:PORT, port 0: any free one; borrowed */
    const char *key_path; /* of the server's key file; borrowed */
    int n_places;
};

/* A worker that said Hello. */
struct remote_worker {
    struct frame_peer peer;
    int pid;
    uint32_t nccl_version;
    char host[REMOTE_TEXT_BYTES], device[REMOTE_TEXT_BYTES], code_path[REMOTE_TEXT_BYTES];
    int64_t heard_ms, pinged_ms;
    bool knows_to_wait;
};

struct remote;

/* STATUS_INVALID: the key file or the address is wrong. STATUS_IO: cannot bind. */
enum status remote_open(struct remote **out, const struct remote_options *options,
                        struct error *err);
void remote_close(struct remote *remote); /* before the context ends; NULL is fine */

void *remote_socket(struct remote *remote);         /* for message_receive() */
const char *remote_endpoint(struct remote *remote); /* tcp://HOST:PORT as bound */
const char *remote_host(struct remote *remote);     /* of it */
int remote_n_waiting(const struct remote *remote);

int remote_poll_items(struct remote *remote, zmq_pollitem_t items[REMOTE_POLL_ITEMS]);

/* Lets in or refuses who knocks, counts connections, pings those who wait. true: a connection
 * ended since the last call, so workers should be asked whether they are there. */
bool remote_tend(struct remote *remote, int64_t now_ms);

/* A message of a peer that serves no stage: a Hello is checked and waits or is refused. */
void remote_on_message(struct remote *remote, const struct frame_peer *peer,
                       const struct message *message, int64_t now_ms);

/* What came is no message: the peer speaks another protocol. */
void remote_on_bad_frame(struct remote *remote, const struct frame_peer *peer,
                         const struct error *why, int64_t now_ms);

/* The one that waits longest leaves the line. false: nobody waits. */
bool remote_take(struct remote *remote, struct remote_worker *out);

/* Those who stay in the line are told so, once. */
void remote_tell_waiting(struct remote *remote);

/*
 * Says to a worker what becomes of it: STATUS_FULL: it waits. STATUS_LOST: it shall begin anew.
 * Others: it is refused and ends. One that cannot be reached finds out by itself.
 */
void remote_tell(const struct frame_peer *peer, enum status status, const char *text);

#endif
