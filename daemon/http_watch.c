/*
 * http_watch.c - a list under a lock, looked through once in a while.
 */
#include "daemon/http_watch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

enum { LOOKS_PER_LIMIT = 10, LOOK_MS_MIN = 10, LOOK_MS_MAX = 1000 };

struct http_watched {
    struct http_watched *next, *previous;
    int fd;
    bool is_answered; /* nothing is expected from the client */
    bool is_cut;
    int64_t since_ms;
};

struct http_watch {
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t stopped;
    struct http_watched *first;
    int limit_ms;
    bool stop, has_thread;
    pthread_t thread;
};

enum status http_watch_create(struct http_watch **out, int limit_ms, struct error *err)
{
    pthread_condattr_t attributes;
    struct http_watch *watch = calloc(1, sizeof(*watch));
    *out = watch;
    if (!watch)
        return error_set(err, STATUS_NOMEM, "cannot allocate the watch over connections");
    watch->limit_ms = limit_ms;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->stopped, &attributes);
    pthread_condattr_destroy(&attributes);
    return STATUS_OK;
}

void http_watch_destroy(struct http_watch *watch)
{
    if (!watch)
        return;
    pthread_mutex_lock(&watch->lock);
    watch->stop = true;
    pthread_cond_signal(&watch->stopped);
    pthread_mutex_unlock(&watch->lock);
    if (watch->has_thread)
        pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->stopped);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}

struct http_watched *http_watch_begin(struct http_watch *watch, int fd, int64_t now_ms)
{
    struct http_watched *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;
    connection->fd = fd;
    connection->since_ms = now_ms;
    pthread_mutex_lock(&watch->lock);
    connection->next = watch->first;
    if (watch->first)
        watch->first->previous = connection;
    watch->first = connection;
    pthread_mutex_unlock(&watch->lock);
    return connection;
}

void http_watch_end(struct http_watch *watch, struct http_watched *take_connection)
{
    struct http_watched *connection = take_connection;
    if (!connection)
        return;
    pthread_mutex_lock(&watch->lock);
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        watch->first = connection->next;
    if (connection->next)
        connection->next->previous = connection->previous;
    pthread_mutex_unlock(&watch->lock);
    free(connection);
}

static void set_state(struct http_watch *watch, struct http_watched *connection, bool is_answered,
                      int64_t now_ms)
{
    if (!connection)
        return;
    pthread_mutex_lock(&watch->lock);
    connection->is_answered = is_answered;
    connection->since_ms = now_ms;
    pthread_mutex_unlock(&watch->lock);
}

void http_watch_answering(struct http_watch *watch, struct http_watched *connection)
{
    set_state(watch, connection, true, 0);
}

void http_watch_waiting(struct http_watch *watch, struct http_watched *connection, int64_t now_ms)
{
    set_state(watch, connection, false, now_ms);
}

static int look_locked(struct http_watch *watch, int64_t now_ms)
{
    int n = 0;
    for (struct http_watched *c = watch->first; c; c = c->next) {
        if (c->is_answered || c->is_cut || now_ms - c->since_ms <= watch->limit_ms)
            continue;
        c->is_cut = true;
        shutdown(c->fd, SHUT_RDWR);
        log_info("http", "connection ended reason=\"no whole request in time\" limit_ms=%d",
                 watch->limit_ms);
        n++;
    }
    return n;
}

int http_watch_look(struct http_watch *watch, int64_t now_ms)
{
    pthread_mutex_lock(&watch->lock);
    int n = look_locked(watch, now_ms);
    pthread_mutex_unlock(&watch->lock);
    return n;
}

static void *look_until_stopped(void *argument)
{
    struct http_watch *watch = argument;
    int pause_ms = watch->limit_ms / LOOKS_PER_LIMIT;
    pause_ms = pause_ms < LOOK_MS_MIN   ? LOOK_MS_MIN
               : pause_ms > LOOK_MS_MAX ? LOOK_MS_MAX
                                        : pause_ms;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stop) {
        int64_t now_ms = clock_monotonic_ms(), end_ms = now_ms + pause_ms;
        struct timespec end = {end_ms / 1000, (long)(end_ms % 1000) * 1000000};
        look_locked(watch, now_ms);
        pthread_cond_timedwait(&watch->stopped, &watch->lock, &end);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

enum status http_watch_start(struct http_watch *watch, struct error *err)
{
    int problem = pthread_create(&watch->thread, NULL, look_until_stopped, watch);
    if (problem != 0)
        return error_set_errno(err, STATUS_NOMEM, problem, "cannot start a thread");
    watch->has_thread = true;
    return STATUS_OK;
}
