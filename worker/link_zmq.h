/*
 * link_zmq.h - a hop over ZeroMQ: ipc or tcp, plain on one machine, CURVE between machines.
 *
 * The listening end is a ROUTER (it must answer the greeting to the peer that greeted), the
 * connecting end a DEALER. Rows are copied once into the message on the way out and used in place
 * on the way in. Keys of a hop are made for it and go to the peer through the control link, which
 * is encrypted itself when not local.
 */
#ifndef MGPT_WORKER_LINK_ZMQ_H
#define MGPT_WORKER_LINK_ZMQ_H

#include "worker/link.h"

/*
 * Downstream end. bind: "ipc:///dir/name", "tcp://127.0.0.1:*", "tcp://HOST:*"; the real endpoint
 * is then (*out)->endpoint. Endpoints that other machines reach have CURVE with a fresh key pair;
 * use_key: all have. zmq: the context, borrowed.  STATUS_IO: cannot bind.
 */
enum status link_zmq_listen(struct link **out, void *zmq, const char *bind, bool use_key,
                            const struct link_shape *shape, struct error *err);

/* Upstream end. key: as the peer told it; empty is taken for local endpoints alone
 * (STATUS_INVALID). */
enum status link_zmq_connect(struct link **out, void *zmq, const char *endpoint, const char *key,
                             const struct link_shape *shape, struct error *err);

/* ---- for a carrier whose rows go another way and whose frames go this one (link_nccl.c) ---- */

struct link_rider {
    void *context;
    /*
     * Downstream end: a greeting with an offer, or without one (offer_bytes 0: its rows will come
     * in the frames). STATUS_OK: with an offer, link_zmq_answer() follows; without, it was
     * answered. Else the greeting is refused with the text.
     */
    enum status (*take_offer)(void *context, const void *offer, size_t offer_bytes,
                              struct error *err);
    void (*take_loss)(void *context, const char *why); /* the peer cannot go on beside */
};

void link_zmq_set_rider(struct link *link, const struct link_rider *rider);

/* Upstream end: a greeting with an offer, at most ACTIVATION_BESIDE_BYTES_MAX. */
enum status link_zmq_greet_with(struct link *link, const void *offer, size_t offer_bytes,
                                struct error *err);

/* Downstream end: the answer to the last offer; with a status other than STATUS_OK a refusal. */
enum status link_zmq_answer(struct link *link, enum status status, const char *text,
                            struct error *err);

/* Upstream end: the frame of rows that go beside, with their ordinal among those of this hop. */
enum status link_zmq_announce(struct link *link, uint64_t number, uint32_t n_tokens,
                              uint64_t ordinal, struct error *err);

/* Either end: tells the peer that rows cannot go beside any more. */
enum status link_zmq_tell_loss(struct link *link, const char *why, struct error *err);

/* Upstream end: takes what the peer said after its greeting. */
void link_zmq_take_notices(struct link *link);

#endif
