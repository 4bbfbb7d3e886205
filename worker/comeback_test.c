/*
 * comeback_test.c - a worker of another machine against a controller made by hand: it waits for its
 * controller, begins anew when that is lost, and ends when it is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/log.h"
#include "proto/message.h"
#include "worker/control.h"

#define MODEL MGPT_SOURCE_DIR "/tests/golden/v7b/model"

enum { WAIT_MS = 20000, SILENCE_MS = 1000, ENDPOINT_ROOM = 128 };

static struct error err;

struct bench {
    void *zmq, *router;
    struct curve_keys server, client;
    char endpoint[ENDPOINT_ROOM];
    pthread_t thread;
    struct control_options options;
    enum status status;
    struct error why;
    struct frame_peer peer;
};

static void *run_worker(void *argument)
{
    struct bench *bench = argument;
    struct stream_options options = {.n_threads = 1};
    bench->status = stream_create(&bench->options.stream, &options, &bench->why);
    if (bench->status == STATUS_OK)
        bench->status = control_run(&bench->options, &bench->why);
    stream_destroy(bench->options.stream);
    return NULL;
}

/* endpoint: "tcp://127.0.0.1:*", or where an earlier one was. */
static void open_router(struct bench *bench, const char *endpoint)
{
    size_t bytes = sizeof(bench->endpoint);
    bench->router = zmq_socket(bench->zmq, ZMQ_ROUTER);
    assert_int_equal(frame_configure_socket(bench->router, &err), STATUS_OK);
    assert_int_equal(curve_set_server(bench->router, &bench->server, &err), STATUS_OK);
    assert_int_equal(zmq_bind(bench->router, endpoint), 0);
    assert_int_equal(zmq_getsockopt(bench->router, ZMQ_LAST_ENDPOINT, bench->endpoint, &bytes), 0);
}

static void close_router(struct bench *bench)
{
    int no_linger = 0;
    zmq_setsockopt(bench->router, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    zmq_close(bench->router);
    zmq_ctx_term(bench->zmq); /* waits until its port is free */
    bench->zmq = zmq_ctx_new();
}

static void set_up(struct bench *bench)
{
    memset(bench, 0, sizeof(*bench));
    bench->zmq = zmq_ctx_new();
    assert_int_equal(curve_generate(&bench->server, &err), STATUS_OK);
    assert_int_equal(curve_generate(&bench->client, &err), STATUS_OK);
    memcpy(bench->client.server_key, bench->server.public_key, sizeof(bench->client.server_key));
    open_router(bench, "tcp://127.0.0.1:*");
    bench->options = (struct control_options){.endpoint = bench->endpoint,
                                              .keys = &bench->client,
                                              .role = MGPT__ROLE__ROLE_STAGE,
                                              .model_dir = MODEL,
                                              .device = "cpu",
                                              .silence_ms = SILENCE_MS,
                                              .comes_back = true};
}

static void start(struct bench *bench)
{
    assert_int_equal(pthread_create(&bench->thread, NULL, run_worker, bench), 0);
}

/* The next Hello, which must be from another identity than the last one. */
static void expect_hello(struct bench *bench)
{
    struct message message;
    struct frame_peer peer;
    do {
        if (message_receive(bench->router, &peer, &message, WAIT_MS, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        bool is_hello = message.type == MESSAGE_HELLO;
        message_clear(&message);
        if (is_hello)
            break;
    } while (true);
    assert_false(frame_peer_equals(&peer, &bench->peer));
    bench->peer = peer;
}

static void tell(struct bench *bench, enum message_type type, enum status status)
{
    Mgpt__Failure failure = MGPT__FAILURE__INIT;
    failure.type = type;
    failure.status = status;
    failure.text = "as the test wants it";
    assert_int_equal(
        message_send(bench->router, &bench->peer, MESSAGE_FAILURE, &failure.base, WAIT_MS, &err),
        STATUS_OK);
}

static void tear_down(struct bench *bench)
{
    pthread_join(bench->thread, NULL);
    close_router(bench);
    zmq_ctx_term(bench->zmq);
}

static void test_waits_and_begins_anew(void **state)
{
    struct bench bench;
    char endpoint[ENDPOINT_ROOM];
    (void)state;
    set_up(&bench);
    strcpy(endpoint, bench.endpoint);
    close_router(&bench); /* its port was free a moment ago: nobody is there */
    start(&bench);
    open_router(&bench, endpoint);
    expect_hello(&bench);
    tell(&bench, MESSAGE_HELLO, STATUS_FULL); /* it waits */
    expect_hello(&bench);                     /* nothing came for SILENCE_MS */
    tell(&bench, MESSAGE_HELLO, STATUS_LOST);
    expect_hello(&bench);
    close_router(&bench);
    open_router(&bench, endpoint);
    expect_hello(&bench);
    Mgpt__Stop stop = MGPT__STOP__INIT;
    assert_int_equal(message_send(bench.router, &bench.peer, MESSAGE_STOP, &stop.base, 0, &err),
                     STATUS_OK);
    tear_down(&bench);
    assert_int_equal(bench.status, STATUS_OK);
}

static void test_ends_when_it_is_refused(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    start(&bench);
    expect_hello(&bench);
    tell(&bench, MESSAGE_LOAD, STATUS_INVALID); /* not about its Hello: nothing */
    tell(&bench, MESSAGE_HELLO, STATUS_INVALID);
    tear_down(&bench);
    assert_int_equal(bench.status, STATUS_INVALID);
    assert_non_null(strstr(bench.why.text, "says: as the test wants it"));
}

/* The controller speaks another version of the protocol. */
static void test_ends_over_frames_of_another_version(void **state)
{
    struct bench bench;
    struct frame_header header = {FRAME_MAGIC, FRAME_VERSION + 1, MESSAGE_PING, 0};
    (void)state;
    set_up(&bench);
    start(&bench);
    expect_hello(&bench);
    zmq_send(bench.router, bench.peer.bytes, bench.peer.n_bytes, ZMQ_SNDMORE);
    zmq_send(bench.router, &header, sizeof(header), ZMQ_SNDMORE);
    zmq_send(bench.router, "", 0, 0);
    tear_down(&bench);
    assert_int_equal(bench.status, STATUS_INVALID);
    assert_non_null(strstr(bench.why.text, "use the same release on both sides"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits_and_begins_anew),
        cmocka_unit_test(test_ends_when_it_is_refused),
        cmocka_unit_test(test_ends_over_frames_of_another_version),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
