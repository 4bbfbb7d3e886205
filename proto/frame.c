/*
 * frame.c - multiparts of identity, header and payload; waits are bounded by the monotonic clock.
 */
#include "proto/frame.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"

enum {
    KEEPALIVE_IDLE_S = 30,
    CONNECT_RETRY_MS = 100,
    CONNECT_RETRY_MS_MAX = 2000,
    SEND_RETRY_MS = 1
};

enum status frame_check_header(const void *bytes, size_t n_bytes, size_t limit,
                               struct frame_header *out, struct error *err)
{
    if (n_bytes != sizeof(*out))
        return error_set(err, STATUS_INVALID, "frame header has %zu bytes, expected %zu", n_bytes,
                         sizeof(*out));
    memcpy(out, bytes, sizeof(*out));
    if (out->magic != FRAME_MAGIC)
        return error_set(err, STATUS_INVALID, "frame begins with %08x, expected %08x", out->magic,
                         FRAME_MAGIC);
    if (out->version != FRAME_VERSION)
        return error_set(err, STATUS_INVALID,
                         "frame has protocol version %u, this build speaks version %u; "
                         "use the same release on both sides",
                         out->version, FRAME_VERSION);
    if (out->payload_bytes > limit)
        return error_set(err, STATUS_INVALID, "frame of type %u has %llu bytes, limit %zu",
                         out->type, (unsigned long long)out->payload_bytes, limit);
    return STATUS_OK;
}

static enum status wait_for_frame(void *socket, int timeout_ms, struct error *err)
{
    int64_t end_ms = clock_monotonic_ms() + timeout_ms;
    for (;;) {
        int64_t left_ms = end_ms - clock_monotonic_ms();
        zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
        int n = zmq_poll(&item, 1, left_ms > 0 ? (long)left_ms : 0);
        if (n > 0)
            return STATUS_OK;
        if (n == 0)
            return error_set(err, STATUS_TIMEOUT, "no frame in %d ms", timeout_ms);
        if (errno != EINTR)
            return error_set(err, STATUS_IO, "cannot poll a socket: %s", zmq_strerror(errno));
    }
}

/* Sends a part; waits for room when `timeout_ms` is above 0. Only the first part of a multipart can
 * find no room. */
static enum status send_part(void *socket, zmq_msg_t *part, int flags, int timeout_ms,
                             struct error *err)
{
    int64_t end_ms = clock_monotonic_ms() + timeout_ms;
    while (zmq_msg_send(part, socket, flags | ZMQ_DONTWAIT) < 0) {
        int failure = errno;
        if (failure == EINTR)
            continue;
        if (failure == EHOSTUNREACH)
            return error_set(err, STATUS_LOST, "cannot send a frame: the peer is not connected");
        if (failure != EAGAIN)
            return error_set(err, STATUS_IO, "cannot send a frame: %s", zmq_strerror(failure));
        if (timeout_ms == 0)
            return error_set(err, STATUS_FULL,
                             "cannot send a frame: the queue to the peer is full");
        if (clock_monotonic_ms() >= end_ms)
            return error_set(err, STATUS_TIMEOUT,
                             "cannot send a frame: the queue to the peer stayed full for %d ms",
                             timeout_ms);
        /* A ROUTER is always ready to poll, though the one peer's queue is full; so the wait is a
         * short sleep. */
        zmq_poll(NULL, 0, SEND_RETRY_MS);
    }
    return STATUS_OK;
}

static enum status make_part(zmq_msg_t *part, const void *bytes, size_t n_bytes, struct error *err)
{
    if (zmq_msg_init_size(part, n_bytes) != 0) {
        zmq_msg_init(part);
        return error_set(err, STATUS_NOMEM, "cannot allocate a part of %zu bytes", n_bytes);
    }
    if (n_bytes > 0)
        memcpy(zmq_msg_data(part), bytes, n_bytes);
    return STATUS_OK;
}

enum status frame_send(void *socket, const struct frame_peer *peer, uint16_t type,
                       zmq_msg_t *payload, int timeout_ms, struct error *err)
{
    CHECK(timeout_ms >= 0);
    struct frame_header header = {FRAME_MAGIC, FRAME_VERSION, type, zmq_msg_size(payload)};
    zmq_msg_t identity_part, header_part;
    enum status st =
        make_part(&identity_part, peer ? peer->bytes : NULL, peer ? peer->n_bytes : 0, err);
    enum status header_status = make_part(&header_part, &header, sizeof(header), err);
    if (st == STATUS_OK)
        st = header_status;
    if (st == STATUS_OK && header.payload_bytes > FRAME_PAYLOAD_BYTES_MAX)
        st = error_set(err, STATUS_INVALID, "frame of type %u has %llu bytes, limit %d", type,
                       (unsigned long long)header.payload_bytes, FRAME_PAYLOAD_BYTES_MAX);
    if (st == STATUS_OK && peer)
        st = send_part(socket, &identity_part, ZMQ_SNDMORE, timeout_ms, err);
    if (st == STATUS_OK)
        st = send_part(socket, &header_part, ZMQ_SNDMORE, timeout_ms, err);
    if (st == STATUS_OK)
        st = send_part(socket, payload, 0, timeout_ms, err);
    /* Parts that were sent are empty by now: closing them again is what ZeroMQ asks for. */
    zmq_msg_close(&identity_part);
    zmq_msg_close(&header_part);
    zmq_msg_close(payload);
    return st;
}

/* Takes the next part; *more tells whether another follows. Parts of one multipart arrive together.
 */
static enum status receive_part(void *socket, zmq_msg_t *part, bool *more, struct error *err)
{
    zmq_msg_init(part);
    while (zmq_msg_recv(part, socket, ZMQ_DONTWAIT) < 0) {
        if (errno == EINTR)
            continue;
        int failure = errno;
        zmq_msg_close(part);
        *more = false;
        if (failure == EAGAIN)
            return error_set(err, STATUS_TIMEOUT, "no frame");
        return error_set(err, STATUS_IO, "cannot receive a frame: %s", zmq_strerror(failure));
    }
    *more = zmq_msg_more(part);
    return STATUS_OK;
}

static void drop_rest(void *socket, bool more)
{
    while (more) {
        zmq_msg_t part;
        if (receive_part(socket, &part, &more, NULL) != STATUS_OK)
            return;
        zmq_msg_close(&part);
    }
}

bool frame_peer_equals(const struct frame_peer *a, const struct frame_peer *b)
{
    return a->socket == b->socket && a->n_bytes == b->n_bytes &&
           memcmp(a->bytes, b->bytes, a->n_bytes) == 0;
}

/* IPv4 comes as ::ffff:1.2.3.4, since sockets here take both. */
static void take_address(struct frame_peer *peer, zmq_msg_t *part)
{
    static const char mapped[] = "::ffff:";
    const char *address = zmq_msg_gets(part, "Peer-Address");
    if (address && strncmp(address, mapped, sizeof(mapped) - 1) == 0 && strchr(address, '.'))
        address += sizeof(mapped) - 1;
    snprintf(peer->address, sizeof(peer->address), "%s", address ? address : "");
}

static enum status receive_peer(void *socket, struct frame_peer *peer, bool *more,
                                struct error *err)
{
    zmq_msg_t part;
    enum status st = receive_part(socket, &part, more, err);
    if (st != STATUS_OK)
        return st;
    size_t n_bytes = zmq_msg_size(&part);
    CHECK(n_bytes <= FRAME_PEER_BYTES_MAX);
    peer->socket = socket;
    peer->n_bytes = n_bytes;
    memcpy(peer->bytes, zmq_msg_data(&part), n_bytes);
    zmq_msg_close(&part);
    return *more ? STATUS_OK : error_set(err, STATUS_INVALID, "frame without a header");
}

/* peer: NULL, or where the address goes; not every version of libzmq tells it with the identity. */
static enum status receive_header(void *socket, struct frame_header *header,
                                  struct frame_peer *peer, bool *more, struct error *err)
{
    zmq_msg_t part;
    enum status st = receive_part(socket, &part, more, err);
    if (st != STATUS_OK)
        return st;
    if (peer)
        take_address(peer, &part);
    st = frame_check_header(zmq_msg_data(&part), zmq_msg_size(&part), FRAME_PAYLOAD_BYTES_MAX,
                            header, err);
    zmq_msg_close(&part);
    if (st == STATUS_OK && !*more)
        st = error_set(err, STATUS_INVALID, "frame of type %u has no payload part", header->type);
    return st;
}

static enum status receive_payload(void *socket, const struct frame_header *header,
                                   struct frame *out, bool *more, struct error *err)
{
    enum status st = receive_part(socket, &out->part, more, err);
    if (st != STATUS_OK)
        return st;
    size_t n_bytes = zmq_msg_size(&out->part);
    if (*more)
        st = error_set(err, STATUS_INVALID, "frame of type %u has more than one payload part",
                       header->type);
    else if (n_bytes != header->payload_bytes)
        st = error_set(err, STATUS_INVALID, "frame of type %u has %zu bytes, its header says %llu",
                       header->type, n_bytes, (unsigned long long)header->payload_bytes);
    if (st != STATUS_OK) {
        zmq_msg_close(&out->part);
        return st;
    }
    out->type = header->type;
    out->n_bytes = n_bytes;
    out->has_part = true;
    out->bytes = n_bytes > 0 ? zmq_msg_data(&out->part) : NULL;
    return STATUS_OK;
}

enum status frame_receive(void *socket, struct frame_peer *peer, struct frame *out, int timeout_ms,
                          struct error *err)
{
    CHECK(timeout_ms >= 0);
    memset(out, 0, sizeof(*out));
    if (peer)
        memset(peer, 0, sizeof(*peer));
    enum status st = timeout_ms > 0 ? wait_for_frame(socket, timeout_ms, err) : STATUS_OK;
    if (st != STATUS_OK)
        return st;
    bool more = false;
    struct frame_header header;
    if (peer)
        st = receive_peer(socket, peer, &more, err);
    if (st == STATUS_OK)
        st = receive_header(socket, &header, peer, &more, err);
    if (st == STATUS_OK)
        st = receive_payload(socket, &header, out, &more, err);
    if (st != STATUS_OK) {
        drop_rest(socket, more);
        memset(out, 0, sizeof(*out));
    }
    return st;
}

void frame_clear(struct frame *frame)
{
    if (frame->has_part)
        zmq_msg_close(&frame->part);
    memset(frame, 0, sizeof(*frame));
}

static enum status set_int(void *socket, int option, const char *name, int value, struct error *err)
{
    if (zmq_setsockopt(socket, option, &value, sizeof(value)) != 0)
        return error_set(err, STATUS_IO, "cannot set %s of a socket to %d: %s", name, value,
                         zmq_strerror(errno));
    return STATUS_OK;
}

enum status frame_configure_socket(void *socket, struct error *err)
{
    int type = 0;
    size_t type_bytes = sizeof(type);
    if (zmq_getsockopt(socket, ZMQ_TYPE, &type, &type_bytes) != 0)
        return error_set(err, STATUS_IO, "cannot ask a socket for its type: %s",
                         zmq_strerror(errno));
    int64_t frame_bytes_max = FRAME_PAYLOAD_BYTES_MAX;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_bytes_max, sizeof(frame_bytes_max)) != 0)
        return error_set(err, STATUS_IO, "cannot set ZMQ_MAXMSGSIZE: %s", zmq_strerror(errno));
    const struct {
        int option, value;
        const char *name;
        bool router_only;
    } settings[] = {
        {ZMQ_LINGER, FRAME_LINGER_MS, "ZMQ_LINGER", false},
        {ZMQ_SNDHWM, FRAME_QUEUE_MAX, "ZMQ_SNDHWM", false},
        {ZMQ_RCVHWM, FRAME_QUEUE_MAX, "ZMQ_RCVHWM", false},
        {ZMQ_IPV6, 1, "ZMQ_IPV6", false},
        {ZMQ_TCP_KEEPALIVE, 1, "ZMQ_TCP_KEEPALIVE", false},
        {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S, "ZMQ_TCP_KEEPALIVE_IDLE", false},
        {ZMQ_RECONNECT_IVL, CONNECT_RETRY_MS, "ZMQ_RECONNECT_IVL", false},
        {ZMQ_RECONNECT_IVL_MAX, CONNECT_RETRY_MS_MAX, "ZMQ_RECONNECT_IVL_MAX", false},
        {ZMQ_ROUTER_MANDATORY, 1, "ZMQ_ROUTER_MANDATORY", true},
        {ZMQ_ROUTER_HANDOVER, 1, "ZMQ_ROUTER_HANDOVER", true},
    };
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (settings[i].router_only && type != ZMQ_ROUTER)
            continue;
        enum status st =
            set_int(socket, settings[i].option, settings[i].name, settings[i].value, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

enum status frame_configure_far_socket(void *socket, int frame_bytes_max, struct error *err)
{
    int64_t limit = frame_bytes_max;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &limit, sizeof(limit)) != 0)
        return error_set(err, STATUS_IO, "cannot set ZMQ_MAXMSGSIZE: %s", zmq_strerror(errno));
    enum status st =
        set_int(socket, ZMQ_HEARTBEAT_IVL, "ZMQ_HEARTBEAT_IVL", FRAME_HEARTBEAT_MS, err);
    if (st == STATUS_OK)
        st = set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, "ZMQ_HEARTBEAT_TIMEOUT", FRAME_SILENCE_MS_MAX,
                     err);
    if (st == STATUS_OK)
        st = set_int(socket, ZMQ_HANDSHAKE_IVL, "ZMQ_HANDSHAKE_IVL", FRAME_HANDSHAKE_MS_MAX, err);
    return st;
}
