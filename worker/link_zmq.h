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
 * is then (*out)->endpoint. use_key: CURVE with a fresh key pair; without it only local endpoints
 * are taken (STATUS_INVALID). zmq: the context, borrowed.  STATUS_IO: cannot bind.
 */
enum status link_zmq_listen(struct link **out, void *zmq, const char *bind, bool use_key,
                            const struct link_shape *shape, struct error *err);

/* Upstream end. key: as the peer told it; empty is taken for local endpoints alone
 * (STATUS_INVALID). */
enum status link_zmq_connect(struct link **out, void *zmq, const char *endpoint, const char *key,
                             const struct link_shape *shape, struct error *err);

#endif
