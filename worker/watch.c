/*
 * watch.c - libzmq's monitor events.
 */
#include "worker/watch.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <zmq.h>

enum {
    EVENTS = ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
             ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
             ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
};

static const char address[] = "inproc://control-watch";

enum status watch_open(struct watch *out, void *zmq, void *socket, struct error *err)
{
    memset(out, 0, sizeof(*out));
    int no_linger = 0;
    if (zmq_socket_monitor(socket, address, EVENTS) != 0)
        return error_set(err, STATUS_IO, "cannot watch the control socket: %s",
                         zmq_strerror(errno));
    out->monitor = zmq_socket(zmq, ZMQ_PAIR);
    if (!out->monitor ||
        zmq_setsockopt(out->monitor, ZMQ_LINGER, &no_linger, sizeof(no_linger)) != 0 ||
        zmq_connect(out->monitor, address) != 0)
        return error_set(err, STATUS_IO, "cannot watch the control socket: %s",
                         zmq_strerror(errno));
    return STATUS_OK;
}

void watch_close(struct watch *watch)
{
    if (watch->monitor)
        zmq_close(watch->monitor);
    watch->monitor = NULL;
}

/* Two parts: number and value, then the endpoint. false: none waits. */
static bool take_event(struct watch *watch, uint16_t *event)
{
    unsigned char bytes[6] = {0};
    char endpoint[1];
    if (zmq_recv(watch->monitor, bytes, sizeof(bytes), ZMQ_DONTWAIT) < 0)
        return false;
    memcpy(event, bytes, sizeof(*event));
    zmq_recv(watch->monitor, endpoint, sizeof(endpoint), ZMQ_DONTWAIT);
    return true;
}

enum watch_news watch_take(struct watch *watch)
{
    uint16_t event;
    while (take_event(watch, &event))
        switch (event) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            watch->is_connected = true;
            return WATCH_CONNECTED;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            return WATCH_REFUSED;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return WATCH_FAILED;
        case ZMQ_EVENT_DISCONNECTED:
            if (!watch->is_connected)
                break; /* the handshake's failure was told */
            watch->is_connected = false;
            return WATCH_LOST;
        case ZMQ_EVENT_CONNECT_RETRIED:
            return WATCH_AWAY;
        }
    return WATCH_NOTHING;
}
