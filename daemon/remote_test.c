/*
 * Goal: the door lets in whoever has a key and speaks our protocol, tells the others why not, and a
 * flood of strangers costs no more than a bounded number of connections.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/remote.h"
#include "proto/curve.h"
#include "proto/endpoint.h"

enum {
    PLACES = 2,
    WAIT_MS = 20000,
    CONNECTIONS_MAX = PLACES + REMOTE_CONNECTIONS_SPARE,
    FLOOD = 2 * CONNECTIONS_MAX
};

struct door {
    void *zmq;
    struct remote *remote;
    struct curve_keys server, worker;
    char path[32];
};

static void set_up(struct door *door)
{
    struct error err;
    struct remote_options options;
    memset(door, 0, sizeof(*door));
    strcpy(door->path, "/tmp/remote-test-XXXXXX");
    int file = mkstemp(door->path);
    assert_true(file >= 0);
    assert_int_equal(curve_generate(&door->server, NULL), STATUS_OK);
    assert_int_equal(curve_generate(&door->worker, NULL), STATUS_OK);
    dprintf(file, "public %s\nsecret %s\nserver %s\nworker %s\n", door->server.public_key,
            door->server.secret_key, door->server.public_key, door->worker.public_key);
    close(file);
    door->zmq = zmq_ctx_new();
    options = (struct remote_options){door->zmq, "127.0.0.1:0", door->path, PLACES};
    if (remote_open(&door->remote, &options, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void tear_down(struct door *door)
{
    remote_close(door->remote);
    zmq_ctx_term(door->zmq);
    unlink(door->path);
}

/* What the engine's loop does, once. */
static void run(struct door *door)
{
    zmq_pollitem_t items[REMOTE_POLL_ITEMS];
    struct message message;
    struct frame_peer peer;
    struct error err;
    zmq_poll(items, remote_poll_items(door->remote, items), 10);
    remote_tend(door->remote, clock_monotonic_ms());
    enum status st;
    while ((st = message_receive(remote_socket(door->remote), &peer, &message, 0, &err)) !=
           STATUS_TIMEOUT) {
        if (st == STATUS_OK)
            remote_on_message(door->remote, &peer, &message, clock_monotonic_ms());
        else
            remote_on_bad_frame(door->remote, &peer, &err, clock_monotonic_ms());
        message_clear(&message);
    }
    remote_tell_waiting(door->remote);
}

static void *open_client(struct door *door, const struct curve_keys *keys)
{
    void *client = zmq_socket(door->zmq, ZMQ_DEALER);
    int no_linger = 0;
    assert_int_equal(frame_configure_socket(client, NULL), STATUS_OK);
    zmq_setsockopt(client, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    assert_int_equal(curve_set_client(client, keys, door->server.public_key, NULL), STATUS_OK);
    assert_int_equal(zmq_connect(client, remote_endpoint(door->remote)), 0);
    return client;
}

static void say_hello(void *client, Mgpt__Role role, const char *version)
{
    Mgpt__Hello hello = MGPT__HELLO__INIT;
    hello.role = role;
    hello.pid = 77;
    hello.host = "far";
    hello.device = "cpu";
    hello.version = (char *)(uintptr_t)version;
    assert_int_equal(message_send(client, NULL, MESSAGE_HELLO, &hello.base, WAIT_MS, NULL),
                     STATUS_OK);
}

/* The door's word to a client, which must be about its Hello and have this in it. */
static void expect_word(struct door *door, void *client, enum status status, const char *word)
{
    struct message message;
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    enum status st;
    do {
        run(door);
        st = message_receive(client, NULL, &message, 0, NULL);
        if (st == STATUS_OK && message.type == MESSAGE_PING) {
            message_clear(&message);
            st = STATUS_TIMEOUT;
        }
    } while (st == STATUS_TIMEOUT && clock_monotonic_ms() < end_ms);
    assert_int_equal(st, STATUS_OK);
    assert_int_equal(message.type, MESSAGE_FAILURE);
    assert_int_equal(message.failure->type, MESSAGE_HELLO);
    assert_int_equal(message.failure->status, status);
    if (!strstr(message.failure->text, word))
        fail_msg("'%s' has no '%s'", message.failure->text, word);
    message_clear(&message);
}

static void test_a_worker_waits_and_gets_a_place(void **state)
{
    struct door door;
    struct remote_worker worker;
    (void)state;
    set_up(&door);
    assert_false(remote_take(door.remote, &worker));
    void *client = open_client(&door, &door.worker);
    say_hello(client, MGPT__ROLE__ROLE_STAGE, MGPT_VERSION);
    expect_word(&door, client, STATUS_FULL, "all 2 places are filled");
    assert_int_equal(remote_n_waiting(door.remote), 1);
    assert_true(remote_take(door.remote, &worker));
    assert_int_equal(worker.pid, 77);
    assert_string_equal(worker.host, "far");
    assert_string_equal(worker.peer.address, "127.0.0.1");
    assert_false(remote_take(door.remote, &worker));
    /* The engine lost it: whatever it says is answered by the advice to begin anew. */
    Mgpt__Connected connected = MGPT__CONNECTED__INIT;
    message_send(client, NULL, MESSAGE_CONNECTED, &connected.base, 0, NULL);
    expect_word(&door, client, STATUS_LOST, "not known here");
    say_hello(client, MGPT__ROLE__ROLE_STAGE, MGPT_VERSION);
    expect_word(&door, client, STATUS_FULL, "places");
    /* It goes away while it waits: a ping finds that out. */
    zmq_close(client);
    while (remote_n_waiting(door.remote) > 0)
        run(&door);
    tear_down(&door);
}

static void test_refusals(void **state)
{
    struct door door;
    (void)state;
    set_up(&door);
    void *client = open_client(&door, &door.worker);
    say_hello(client, MGPT__ROLE__ROLE_STAGE, "99.0.0");
    expect_word(&door, client, STATUS_INVALID, "is release 99.0.0, mgptd is " MGPT_VERSION);
    say_hello(client, MGPT__ROLE__ROLE_CODEC, MGPT_VERSION);
    expect_word(&door, client, STATUS_UNSUPPORTED, "only stages");
    struct frame_header header = {FRAME_MAGIC, FRAME_VERSION + 1, MESSAGE_HELLO, 0};
    zmq_send(client, &header, sizeof(header), ZMQ_SNDMORE);
    zmq_send(client, "", 0, 0);
    expect_word(&door, client, STATUS_INVALID, "protocol version");
    zmq_send(client, "garbage", 7, 0);
    expect_word(&door, client, STATUS_INVALID, "frame header");
    assert_int_equal(remote_n_waiting(door.remote), 0);
    zmq_close(client);
    tear_down(&door);
}

static void test_line_is_bounded(void **state)
{
    struct door door;
    void *clients[REMOTE_WAITING_MAX + 1];
    (void)state;
    set_up(&door);
    for (int i = 0; i < REMOTE_WAITING_MAX; i++) {
        clients[i] = open_client(&door, &door.worker);
        say_hello(clients[i], MGPT__ROLE__ROLE_STAGE, MGPT_VERSION);
        expect_word(&door, clients[i], STATUS_FULL, "spare");
    }
    void *last = clients[REMOTE_WAITING_MAX] = open_client(&door, &door.worker);
    say_hello(last, MGPT__ROLE__ROLE_STAGE, MGPT_VERSION);
    expect_word(&door, last, STATUS_FULL, "64 workers wait");
    assert_int_equal(remote_n_waiting(door.remote), REMOTE_WAITING_MAX);
    for (int i = 0; i <= REMOTE_WAITING_MAX; i++)
        zmq_close(clients[i]);
    tear_down(&door);
}

/* Runs the door until the monitor of a client tells this event. */
static void expect_event(struct door *door, void *monitor, uint16_t expected)
{
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    uint16_t event = 0;
    while (event != expected && clock_monotonic_ms() < end_ms) {
        unsigned char bytes[6], endpoint[1];
        run(door);
        if (zmq_recv(monitor, bytes, sizeof(bytes), ZMQ_DONTWAIT) < 0)
            continue;
        memcpy(&event, bytes, sizeof(event));
        zmq_recv(monitor, endpoint, sizeof(endpoint), 0);
    }
    assert_int_equal(event, expected);
}

static void test_unknown_key(void **state)
{
    struct door door;
    struct curve_keys stranger;
    (void)state;
    set_up(&door);
    assert_int_equal(curve_generate(&stranger, NULL), STATUS_OK);
    void *client = zmq_socket(door.zmq, ZMQ_DEALER), *monitor = zmq_socket(door.zmq, ZMQ_PAIR);
    int no_linger = 0;
    zmq_setsockopt(client, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    assert_int_equal(frame_configure_socket(client, NULL), STATUS_OK);
    assert_int_equal(zmq_socket_monitor(client, "inproc://client", ZMQ_EVENT_HANDSHAKE_FAILED_AUTH),
                     0);
    assert_int_equal(zmq_connect(monitor, "inproc://client"), 0);
    assert_int_equal(curve_set_client(client, &stranger, door.server.public_key, NULL), STATUS_OK);
    assert_int_equal(zmq_connect(client, remote_endpoint(door.remote)), 0);
    zmq_setsockopt(client, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    say_hello(client, MGPT__ROLE__ROLE_STAGE, MGPT_VERSION);
    expect_event(&door, monitor, ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
    assert_int_equal(remote_n_waiting(door.remote), 0);
    zmq_close(client);
    zmq_close(monitor);
    tear_down(&door);
}

static int begin_connection(const struct door *door)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(endpoint_port(remote_endpoint(door->remote)))),
        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int file = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(file >= 0);
    connect(file, (struct sockaddr *)&address, sizeof(address));
    return file;
}

/* Whether the other end lets a connection live; false: it was ended. Nothing is ever sent to it but
 * ZMTP's greeting, so what can be told is its end. */
static bool lives(int file)
{
    char bytes[256];
    ssize_t n;
    while ((n = recv(file, bytes, sizeof(bytes), 0)) > 0)
        continue;
    return n < 0 && (errno == EAGAIN || errno == EINPROGRESS);
}

static int count_living(struct door *door, const int *files, int n)
{
    int n_living = 0;
    run(door);
    for (int i = 0; i < n; i++)
        n_living += lives(files[i]);
    return n_living;
}

/* Strangers who connect and say nothing: so many may, those beyond are cut off, all of them when
 * the time for a handshake is over; who was in before does not notice. */
static void test_flood(void **state)
{
    struct door door;
    int files[FLOOD];
    (void)state;
    set_up(&door);
    void *client = open_client(&door, &door.worker);
    say_hello(client, MGPT__ROLE__ROLE_STAGE, MGPT_VERSION);
    expect_word(&door, client, STATUS_FULL, "spare");
    for (int i = 0; i < FLOOD; i++)
        files[i] = begin_connection(&door);
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    while (count_living(&door, files, FLOOD) > CONNECTIONS_MAX - 1)
        assert_true(clock_monotonic_ms() < end_ms);
    /* It was not their time, which ends that of the first ones first. */
    assert_true(lives(files[0]));
    struct remote_worker worker;
    assert_true(remote_take(door.remote, &worker));
    Mgpt__Connected connected = MGPT__CONNECTED__INIT; /* anything: it is heard */
    message_send(client, NULL, MESSAGE_CONNECTED, &connected.base, 0, NULL);
    expect_word(&door, client, STATUS_LOST, "not known");
    while (count_living(&door, files, FLOOD) > 0)
        assert_true(clock_monotonic_ms() < end_ms);
    for (int i = 0; i < FLOOD; i++)
        close(files[i]);
    zmq_close(client);
    tear_down(&door);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_worker_waits_and_gets_a_place),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_line_is_bounded),
        cmocka_unit_test(test_unknown_key),
        cmocka_unit_test(test_flood),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
