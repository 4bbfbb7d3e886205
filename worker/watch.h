/*
 * watch.h - what becomes of the connection to a controller on another machine.
 *
 * In:      the events of the control socket's monitor.   Out: what they mean, one at a time.
 * Owns:    the monitor's socket; open before the control socket connects, close before the context
 * ends. Threads: the compute thread.
 */
#ifndef MGPT_WORKER_WATCH_H
#define MGPT_WORKER_WATCH_H

#include <stdbool.h>

#include "base/error.h"

enum watch_news {
    WATCH_NOTHING,   /* no more news */
    WATCH_CONNECTED, /* both sides showed their keys: messages pass */
    WATCH_LOST,      /* and the connection is gone again */
    WATCH_AWAY,      /* nobody answers there; the socket tries again by itself */
    WATCH_REFUSED,   /* the controller does not know our key */
    WATCH_FAILED /* no handshake: another program, or another server key; the socket tries again */
};

struct watch {
    void *monitor; /* PAIR; poll it for reading */
    bool is_connected;
};

enum status watch_open(struct watch *out, void *zmq, void *socket, struct error *err);
void watch_close(struct watch *watch); /* a zeroed one is fine */

/* Never waits. Call until WATCH_NOTHING. */
enum watch_news watch_take(struct watch *watch);

#endif
