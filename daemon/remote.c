/*
 * remote.c - a ROUTER, the questions libzmq asks about keys (ZAP, RFC 27), and its monitor.
 */
#include "daemon/remote.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "daemon/limits.h"
#include "proto/curve.h"
#include "proto/endpoint.h"

enum {
    EVENTS = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
             ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL,
    ZAP_PARTS = 7,
    ZAP_PART_BYTES = 256
};

static const char monitor_address[] = "inproc://remote-watch";

/* Of what anybody can bring about as often as he likes, a line now and then is enough. */
struct complaint {
    int64_t next_ms;
    int n_silent;
};

struct remote {
    struct remote_options options;
    void *router, *zap, *monitor;
    struct curve_list *admitted;
    char endpoint[ENDPOINT_BYTES], host[ENDPOINT_HOST_BYTES];
    int port, fd_max; /* the highest that a connection had; -1: none */
    struct complaint strangers, handshakes, floods, frames;
    struct remote_worker waiting[REMOTE_WAITING_MAX]; /* [n_waiting] in order */
    int n_waiting;
};

/* ---- opening ---- */

static enum status zmq_failure(struct error *err, const char *what)
{
    return error_set(err, STATUS_IO, "cannot %s for workers of other machines: %s", what,
                     zmq_strerror(zmq_errno()));
}

static enum status load_keys(struct remote *remote, struct error *err)
{
    struct curve_keys keys;
    remote->admitted = calloc(1, sizeof(*remote->admitted));
    if (!remote->admitted)
        return error_set(err, STATUS_NOMEM, "cannot allocate the list of workers' keys");
    enum status st = curve_load_file(&keys, remote->admitted, remote->options.key_path, err);
    if (st != STATUS_OK)
        return error_wrap(err, st, "--worker-key");
    if (remote->admitted->n == 0)
        return error_set(err, STATUS_INVALID,
                         "--worker-key: '%s' has no line 'worker KEY', so nobody could come in "
                         "(mgpt make-keys writes such files)",
                         remote->options.key_path);
    return curve_set_server(remote->router, &keys, err);
}

static void *open_pair(struct remote *remote, int type)
{
    int no_linger = 0;
    void *socket = zmq_socket(remote->options.context, type);
    if (socket)
        zmq_setsockopt(socket, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    return socket;
}

/* ZAP must be there before the first connection is. */
static enum status open_watchers(struct remote *remote, struct error *err)
{
    static const char domain[] = "workers";
    remote->zap = open_pair(remote, ZMQ_REP);
    remote->monitor = open_pair(remote, ZMQ_PAIR);
    if (!remote->zap || zmq_bind(remote->zap, "inproc://zeromq.zap.01") != 0 ||
        zmq_setsockopt(remote->router, ZMQ_ZAP_DOMAIN, domain, sizeof(domain) - 1) != 0)
        return zmq_failure(err, "check the keys");
    if (!remote->monitor || zmq_socket_monitor(remote->router, monitor_address, EVENTS) != 0 ||
        zmq_connect(remote->monitor, monitor_address) != 0)
        return zmq_failure(err, "watch the socket");
    return STATUS_OK;
}

static enum status bind_router(struct remote *remote, struct error *err)
{
    char host[ENDPOINT_HOST_BYTES], wanted[ENDPOINT_BYTES], bound[ENDPOINT_BYTES];
    size_t bytes = sizeof(bound);
    const char *port = endpoint_port(remote->options.listen);
    if (!endpoint_host(host, remote->options.listen) || !*port || strlen(port) > 5 ||
        port[strspn(port, "0123456789")] || atoi(port) > 65535)
        return error_set(err, STATUS_INVALID,
                         "--worker-listen is '%s', expected HOST:PORT, an address of this machine "
                         "or *, and a port or 0",
                         remote->options.listen);
    endpoint_format(wanted, host, atoi(port) == 0 ? "*" : port);
    if (zmq_bind(remote->router, wanted) != 0)
        return error_set(err, STATUS_IO,
                         "cannot listen for workers at '%s': %s (--worker-listen takes an address "
                         "of this machine in numbers, or *)",
                         remote->options.listen, zmq_strerror(zmq_errno()));
    if (zmq_getsockopt(remote->router, ZMQ_LAST_ENDPOINT, bound, &bytes) != 0)
        return zmq_failure(err, "ask for the address");
    endpoint_host(remote->host, bound);
    remote->port = atoi(endpoint_port(bound));
    endpoint_format(remote->endpoint, remote->host, endpoint_port(bound));
    return STATUS_OK;
}

enum status remote_open(struct remote **out, const struct remote_options *options,
                        struct error *err)
{
    *out = NULL;
    struct remote *remote = calloc(1, sizeof(*remote));
    if (!remote)
        return error_set(err, STATUS_NOMEM, "cannot allocate the door for workers");
    remote->options = *options;
    remote->fd_max = -1;
    remote->router = zmq_socket(options->context, ZMQ_ROUTER);
    enum status st = remote->router ? frame_configure_socket(remote->router, err)
                                    : zmq_failure(err, "open a socket");
    if (st == STATUS_OK)
        st = frame_configure_far_socket(remote->router, REMOTE_FRAME_BYTES_MAX, err);
    if (st == STATUS_OK)
        st = load_keys(remote, err);
    if (st == STATUS_OK)
        st = open_watchers(remote, err);
    if (st == STATUS_OK)
        st = bind_router(remote, err);
    if (st != STATUS_OK) {
        remote_close(remote);
        return st;
    }
    log_info("engine", "workers may connect endpoint=%s places=%d keys=%d", remote->endpoint,
             options->n_places, remote->admitted->n);
    *out = remote;
    return STATUS_OK;
}

void remote_close(struct remote *remote)
{
    if (!remote)
        return;
    void *const sockets[] = {remote->router, remote->zap, remote->monitor};
    int no_linger = 0;
    for (int i = 0; i < 3; i++)
        if (sockets[i]) {
            zmq_setsockopt(sockets[i], ZMQ_LINGER, &no_linger, sizeof(no_linger));
            zmq_close(sockets[i]);
        }
    free(remote->admitted);
    free(remote);
}

void *remote_socket(struct remote *remote)
{
    return remote->router;
}

const char *remote_endpoint(struct remote *remote)
{
    return remote->endpoint;
}

const char *remote_host(struct remote *remote)
{
    return remote->host;
}

int remote_n_waiting(const struct remote *remote)
{
    return remote->n_waiting;
}

int remote_poll_items(struct remote *remote, zmq_pollitem_t items[REMOTE_POLL_ITEMS])
{
    items[0] = (zmq_pollitem_t){.socket = remote->router, .events = ZMQ_POLLIN};
    items[1] = (zmq_pollitem_t){.socket = remote->zap, .events = ZMQ_POLLIN};
    items[2] = (zmq_pollitem_t){.socket = remote->monitor, .events = ZMQ_POLLIN};
    return REMOTE_POLL_ITEMS;
}

/* ---- who may come in ---- */

/* true: say it; *n_silent: how often it was not said since the last time. */
static bool may_complain(struct complaint *complaint, int64_t now_ms, int *n_silent)
{
    if (now_ms < complaint->next_ms) {
        complaint->n_silent++;
        return false;
    }
    *n_silent = complaint->n_silent;
    *complaint = (struct complaint){.next_ms = now_ms + REMOTE_COMPLAINT_MS};
    return true;
}

/* A question: version, id, domain, address, identity, mechanism, key. false: none waits. */
static bool take_question(void *zap, char parts[ZAP_PARTS][ZAP_PART_BYTES], size_t bytes[ZAP_PARTS])
{
    int more = 1;
    size_t more_bytes = sizeof(more);
    int n = 0;
    memset(bytes, 0, ZAP_PARTS * sizeof(bytes[0]));
    while (more) {
        char rest[ZAP_PART_BYTES];
        char *part = n < ZAP_PARTS ? parts[n] : rest;
        int length = zmq_recv(zap, part, ZAP_PART_BYTES - 1, ZMQ_DONTWAIT);
        if (length < 0)
            return false;
        length = length < ZAP_PART_BYTES ? length : ZAP_PART_BYTES - 1;
        part[length] = 0;
        if (n < ZAP_PARTS)
            bytes[n] = (size_t)length;
        n++;
        zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &more_bytes);
    }
    return true;
}

static void answer_questions(struct remote *remote, int64_t now_ms)
{
    char parts[ZAP_PARTS][ZAP_PART_BYTES];
    size_t bytes[ZAP_PARTS];
    int n_silent;
    for (int i = 0; i < REMOTE_EVENTS_MAX && take_question(remote->zap, parts, bytes); i++) {
        bool is_good = bytes[6] == CURVE_KEY_BYTES && strcmp(parts[5], "CURVE") == 0 &&
                       curve_list_has(remote->admitted, (const uint8_t *)parts[6]);
        const char *const answer[] = {"1.0", parts[1], is_good ? "200" : "400", "", "", ""};
        const size_t lengths[] = {3, bytes[1], 3, 0, 0, 0};
        for (int k = 0; k < 6; k++)
            zmq_send(remote->zap, answer[k], lengths[k], k < 5 ? ZMQ_SNDMORE : 0);
        if (!is_good && may_complain(&remote->strangers, now_ms, &n_silent))
            log_warn("engine",
                     "worker refused address=%s earlier=%d reason=\"its key is no line 'worker' of "
                     "--worker-key\"",
                     parts[3], n_silent);
    }
}

/* ---- how many may come ---- */

static int port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return address->ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)address)->sin_port)
                                         : -1;
}

/* By now libzmq may have closed it, and the number may be another file's. */
static bool is_connection(const struct remote *remote, int fd)
{
    struct sockaddr_storage own, peer;
    socklen_t own_bytes = sizeof(own), peer_bytes = sizeof(peer);
    return getsockname(fd, (struct sockaddr *)&own, &own_bytes) == 0 &&
           port_of(&own) == remote->port &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0;
}

/* Asks the kernel rather than counts events: not every end of a connection has one. */
static int count_connections(const struct remote *remote)
{
    int n = 0;
    for (int fd = 0; fd <= remote->fd_max; fd++)
        n += is_connection(remote, fd);
    return n;
}

/* libzmq accepts whoever comes. Whoever is too many is cut off as soon as it is seen here, which to
 * libzmq is a peer that hung up. */
static void cut_off(struct remote *remote, const int *newest, int n_newest, int64_t now_ms)
{
    int most = remote->options.n_places + REMOTE_CONNECTIONS_SPARE;
    int n = count_connections(remote), n_silent;
    for (int i = n_newest - 1; i >= 0 && n > most; i--)
        if (is_connection(remote, newest[i])) {
            shutdown(newest[i], SHUT_RDWR);
            n--;
            if (may_complain(&remote->floods, now_ms, &n_silent))
                log_warn("engine",
                         "connection refused endpoint=%s earlier=%d reason=\"%d are open\"",
                         remote->endpoint, n_silent, most);
        }
}

/* Two parts: number and value, then the endpoint. */
static bool take_event(struct remote *remote, uint16_t *event, int32_t *value)
{
    unsigned char bytes[sizeof(*event) + sizeof(*value)] = {0};
    char endpoint[1];
    if (zmq_recv(remote->monitor, bytes, sizeof(bytes), ZMQ_DONTWAIT) < 0)
        return false;
    memcpy(event, bytes, sizeof(*event));
    memcpy(value, bytes + sizeof(*event), sizeof(*value));
    zmq_recv(remote->monitor, endpoint, sizeof(endpoint), ZMQ_DONTWAIT);
    return true;
}

/* true: a connection ended. */
static bool follow_connections(struct remote *remote, int64_t now_ms)
{
    uint16_t event;
    int32_t value;
    int newest[REMOTE_EVENTS_MAX], n_newest = 0, n_silent;
    bool ended = false;
    for (int i = 0; i < REMOTE_EVENTS_MAX && take_event(remote, &event, &value); i++) {
        if (event == ZMQ_EVENT_ACCEPTED) {
            remote->fd_max = value > remote->fd_max ? value : remote->fd_max;
            newest[n_newest++] = value;
        } else if (event == ZMQ_EVENT_DISCONNECTED) {
            ended = true;
        } else if (may_complain(&remote->handshakes, now_ms, &n_silent)) {
            log_warn("engine",
                     "connection refused endpoint=%s earlier=%d reason=\"no CURVE handshake: not a "
                     "worker, or another server key\"",
                     remote->endpoint, n_silent);
        }
    }
    if (n_newest > 0)
        cut_off(remote, newest, n_newest, now_ms);
    return ended;
}

/* ---- who waits ---- */

static void remove_waiting(struct remote *remote, int i)
{
    remote->n_waiting--;
    memmove(&remote->waiting[i], &remote->waiting[i + 1],
            (size_t)(remote->n_waiting - i) * sizeof(remote->waiting[0]));
}

static int find_waiting(const struct remote *remote, const struct frame_peer *peer)
{
    for (int i = 0; i < remote->n_waiting; i++)
        if (frame_peer_equals(&remote->waiting[i].peer, peer))
            return i;
    return -1;
}

void remote_tell(const struct frame_peer *peer, enum status status, const char *text)
{
    Mgpt__Failure failure = MGPT__FAILURE__INIT;
    failure.status = (uint32_t)status;
    failure.text = (char *)(uintptr_t)text;
    failure.type = MESSAGE_HELLO;
    message_send(peer->socket, peer, MESSAGE_FAILURE, &failure.base, 0, NULL);
}

static void ping_waiting(struct remote *remote, int64_t now_ms)
{
    for (int i = remote->n_waiting - 1; i >= 0; i--) {
        struct remote_worker *worker = &remote->waiting[i];
        if (now_ms - worker->pinged_ms < WORKER_PING_MS)
            continue;
        Mgpt__Ping ping = MGPT__PING__INIT;
        worker->pinged_ms = now_ms;
        bool is_there = message_send(remote->router, &worker->peer, MESSAGE_PING, &ping.base, 0,
                                     NULL) == STATUS_OK;
        if (is_there && now_ms - worker->heard_ms <= REMOTE_SILENCE_MS)
            continue;
        log_info("engine", "waiting worker is gone address=%s pid=%d", worker->peer.address,
                 worker->pid);
        remote_tell(&worker->peer, STATUS_LOST, "it was silent for too long");
        remove_waiting(remote, i);
    }
}

bool remote_tend(struct remote *remote, int64_t now_ms)
{
    answer_questions(remote, now_ms);
    bool ended = follow_connections(remote, now_ms);
    if (ended)
        for (int i = 0; i < remote->n_waiting; i++)
            remote->waiting[i].pinged_ms = 0; /* was it one of them? */
    ping_waiting(remote, now_ms);
    return ended;
}

static enum status check_hello(const struct remote *remote, const Mgpt__Hello *hello,
                               struct error *err)
{
    if (hello->role != MGPT__ROLE__ROLE_STAGE)
        return error_set(err, STATUS_UNSUPPORTED,
                         "only stages come from other machines, mgptd starts its picture worker "
                         "itself: leave out --role codec");
    if (strcmp(hello->version, MGPT_VERSION) != 0)
        return error_set(err, STATUS_INVALID,
                         "this worker is release %.32s, mgptd is %s: install the same release on "
                         "both machines",
                         hello->version, MGPT_VERSION);
    if (hello->pid == 0 || hello->pid > INT32_MAX)
        return error_set(err, STATUS_INVALID, "a Hello with process id %llu",
                         (unsigned long long)hello->pid);
    if (remote->n_waiting == REMOTE_WAITING_MAX)
        return error_set(err, STATUS_FULL, "%d workers wait for a place already",
                         REMOTE_WAITING_MAX);
    return STATUS_OK;
}

static void take_hello(struct remote *remote, const struct frame_peer *peer,
                       const Mgpt__Hello *hello, int64_t now_ms)
{
    struct error why;
    int i = find_waiting(remote, peer);
    if (i >= 0)
        remove_waiting(remote, i); /* said twice: it begins anew */
    enum status st = check_hello(remote, hello, &why);
    if (st != STATUS_OK) {
        log_warn("engine", "worker refused address=%s host=%.64s reason=\"%s\"", peer->address,
                 hello->host, why.text);
        remote_tell(peer, st, why.text);
        return;
    }
    struct remote_worker *worker = &remote->waiting[remote->n_waiting++];
    memset(worker, 0, sizeof(*worker));
    worker->peer = *peer;
    worker->pid = (int)hello->pid;
    worker->nccl_version = hello->nccl_version;
    worker->heard_ms = worker->pinged_ms = now_ms;
    snprintf(worker->host, sizeof(worker->host), "%s", hello->host);
    snprintf(worker->device, sizeof(worker->device), "%s", hello->device);
    snprintf(worker->code_path, sizeof(worker->code_path), "%s", hello->code_path);
    log_info("engine", "worker came address=%s host=%s pid=%d device=%s path=%s", peer->address,
             worker->host, worker->pid, worker->device, worker->code_path);
}

void remote_on_message(struct remote *remote, const struct frame_peer *peer,
                       const struct message *message, int64_t now_ms)
{
    int i = find_waiting(remote, peer);
    if (message->type == MESSAGE_HELLO)
        take_hello(remote, peer, message->hello, now_ms);
    else if (i >= 0)
        remote->waiting[i].heard_ms = now_ms;
    else if (message->type != MESSAGE_FAILURE)
        remote_tell(peer, STATUS_LOST, "it is not known here (any more)");
}

void remote_on_bad_frame(struct remote *remote, const struct frame_peer *peer,
                         const struct error *why, int64_t now_ms)
{
    int n_silent;
    if (may_complain(&remote->frames, now_ms, &n_silent))
        log_warn("engine", "worker's frame refused address=%s earlier=%d reason=\"%s\"",
                 peer->address, n_silent, why->text);
    if (peer->n_bytes > 0)
        remote_tell(peer, STATUS_INVALID, why->text);
}

bool remote_take(struct remote *remote, struct remote_worker *out)
{
    if (remote->n_waiting == 0)
        return false;
    *out = remote->waiting[0];
    remove_waiting(remote, 0);
    return true;
}

void remote_tell_waiting(struct remote *remote)
{
    char text[ERROR_TEXT_BYTES];
    for (int i = 0; i < remote->n_waiting; i++) {
        if (remote->waiting[i].knows_to_wait)
            continue;
        snprintf(text, sizeof(text), "all %d places are filled; this worker waits as a spare",
                 remote->options.n_places);
        remote_tell(&remote->waiting[i].peer, STATUS_FULL, text);
        remote->waiting[i].knows_to_wait = true;
    }
}
