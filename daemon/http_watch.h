/*
 * http_watch.h - ends connections whose request does not arrive whole in time.
 *
 * libmicrohttpd's own limit starts anew with every byte: a client that sends one now and then would
 * keep a connection, and a few hundred such clients the server.
 *
 * In:      connections that begin, wait for a request, are being answered, end.   Out: their
 * sockets shut down, so that whoever reads them sees an end.
 * Threads: any; http_watch_start() has one of its own look once in a while.
 */
#ifndef MGPT_DAEMON_HTTP_WATCH_H
#define MGPT_DAEMON_HTTP_WATCH_H

#include <stdint.h>

#include "base/error.h"

struct http_watch;
struct http_watched; /* one connection */

/* limit_ms: from the beginning of a connection, or the end of the reply before, to the last byte of
 * a request. */
enum status http_watch_create(struct http_watch **out, int limit_ms, struct error *err);

/* Ends the thread. Connections must have ended. NULL is fine. */
void http_watch_destroy(struct http_watch *watch);

enum status http_watch_start(struct http_watch *watch, struct error *err);

/* A connection that waits for its first request from now_ms on; NULL: no memory, it is not watched.
 * The descriptor must stay open until http_watch_end(). */
struct http_watched *http_watch_begin(struct http_watch *watch, int fd, int64_t now_ms);
void http_watch_end(struct http_watch *watch, struct http_watched *take_connection);

/* A whole request came: answering it takes as long as it takes.  Its reply went out: the next one
 * may come. NULL is fine for both. */
void http_watch_answering(struct http_watch *watch, struct http_watched *connection);
void http_watch_waiting(struct http_watch *watch, struct http_watched *connection, int64_t now_ms);

/* What the thread does: shuts down what waits for longer than the limit. Returns how many. */
int http_watch_look(struct http_watch *watch, int64_t now_ms);

#endif
