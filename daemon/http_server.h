/*
 * http_server.h - the door for clients: libmicrohttpd, a thread for each connection, routes to
 * handlers.
 *
 * In:      HTTP requests.   Out: replies; errors in OpenAI's shape.
 * Threads: a handler runs on its connection's thread and may wait there; it talks to the engine by
 * messages only.
 */
#ifndef MGPT_DAEMON_HTTP_SERVER_H
#define MGPT_DAEMON_HTTP_SERVER_H

#include "daemon/engine.h"
#include "daemon/http_key.h"

enum {
    HTTP_CONNECTIONS_MAX = 512,
    HTTP_IDLE_WAIT_S = 60,         /* a connection on which nothing moves, outside of handlers */
    HTTP_REQUEST_WAIT_S = 120,     /* default of request_wait_s */
    HTTP_BODY_BYTES_MAX = 1 << 20, /* of a request; larger ones get 413 */
    HTTP_DISCARD_BYTES_MAX =
        64 << 20, /* of a body too large read to its end, so that the client sees the reply */
    HTTP_KEEPALIVE_MS = 15 * 1000,  /* between two signs of life in a stream of events */
    HTTP_DRAIN_WAIT_MS = 10 * 1000, /* for replies under way when the server stops */
    HTTP_RETRY_AFTER_MAX_S = 60,
    HTTP_STALL_LIMIT_S = 120, /* default of stall_limit_s */
};

struct http_options {
    const char *address; /* "127.0.0.1:8086", "[::1]:8086", port 0: any free one */
    struct engine *engine;
    const struct served_model *model;
    const char *model_name;     /* as /v1/models says it */
    const struct http_key *key; /* what clients must show but at /health and /v1/files/, whose names
                                   nobody can guess; NULL: none, on this machine only */
    int request_wait_s; /* for a whole request, from the reply before or the connection on */
    int stall_limit_s;  /* /health is 503 when work runs and no token came for so long */
};

struct http_server;

/* STATUS_INVALID: the address, or others reach it and there is no key.  STATUS_IO: it cannot be
 * bound. */
enum status http_server_start(struct http_server **out, const struct http_options *options,
                              struct error *err);

/* "http://127.0.0.1:8086" with the port in use. */
const char *http_server_url(const struct http_server *server);

/* No new connections; those that are open go on. */
void http_server_quiesce(struct http_server *server);

/* Waits for replies under way (HTTP_DRAIN_WAIT_MS at most), ends all connections and threads. NULL
 * is fine. */
void http_server_stop(struct http_server *server);

#endif
