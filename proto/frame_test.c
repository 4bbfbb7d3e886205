/*
 * frame_test.c - every way a multipart can be wrong is refused, and the next good frame still
 * arrives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/activation.h"
#include "proto/frame.h"
#include "proto/message.h"

static struct error err;

/* A ROUTER and a DEALER that know each other. */
struct wire {
    void *zmq, *router, *dealer;
    struct frame_peer peer;
};

static void wire_open(struct wire *w)
{
    memset(w, 0, sizeof(*w));
    w->zmq = zmq_ctx_new();
    w->router = zmq_socket(w->zmq, ZMQ_ROUTER);
    w->dealer = zmq_socket(w->zmq, ZMQ_DEALER);
    assert_int_equal(frame_configure_socket(w->router, &err), STATUS_OK);
    assert_int_equal(frame_configure_socket(w->dealer, &err), STATUS_OK);
    assert_int_equal(zmq_bind(w->router, "inproc://wire"), 0);
    assert_int_equal(zmq_connect(w->dealer, "inproc://wire"), 0);
}

static void wire_close(struct wire *w)
{
    zmq_close(w->router);
    zmq_close(w->dealer);
    zmq_ctx_term(w->zmq);
}

/* Parts as they are, the last one ending the multipart. */
static void send_raw(struct wire *w, int n, const void *const parts[], const size_t sizes[])
{
    for (int i = 0; i < n; i++)
        assert_true(zmq_send(w->dealer, parts[i], sizes[i], i + 1 < n ? ZMQ_SNDMORE : 0) >= 0);
}

static void send_good(struct wire *w, const char *text)
{
    zmq_msg_t payload;
    assert_int_equal(zmq_msg_init_size(&payload, strlen(text)), 0);
    memcpy(zmq_msg_data(&payload), text, strlen(text));
    assert_int_equal(frame_send(w->dealer, NULL, 7, &payload, 0, &err), STATUS_OK);
}

static void expect_good(struct wire *w, const char *text)
{
    struct frame frame;
    assert_int_equal(frame_receive(w->router, &w->peer, &frame, 1000, &err), STATUS_OK);
    assert_int_equal(frame.type, 7);
    assert_int_equal(frame.n_bytes, strlen(text));
    if (*text)
        assert_memory_equal(frame.bytes, text, strlen(text));
    else
        assert_null(frame.bytes);
    frame_clear(&frame);
}

static void test_there_and_back(void **state)
{
    (void)state;
    struct wire w;
    wire_open(&w);
    send_good(&w, "hello");
    expect_good(&w, "hello");
    send_good(&w, "");
    expect_good(&w, "");
    zmq_msg_t payload;
    zmq_msg_init_size(&payload, 3);
    memcpy(zmq_msg_data(&payload), "abc", 3);
    assert_int_equal(frame_send(w.router, &w.peer, 9, &payload, 0, &err), STATUS_OK);
    struct frame frame;
    assert_int_equal(frame_receive(w.dealer, NULL, &frame, 1000, &err), STATUS_OK);
    assert_int_equal(frame.type, 9);
    frame_clear(&frame);
    frame_clear(&frame);
    wire_close(&w);
}

static void test_waits_are_bounded(void **state)
{
    (void)state;
    struct wire w;
    struct frame frame;
    wire_open(&w);
    assert_int_equal(frame_receive(w.router, &w.peer, &frame, 0, &err), STATUS_TIMEOUT);
    int64_t begin_ms = clock_monotonic_ms();
    assert_int_equal(frame_receive(w.router, &w.peer, &frame, 50, &err), STATUS_TIMEOUT);
    assert_in_range(clock_monotonic_ms() - begin_ms, 49, 2000);
    assert_false(frame.has_part);
    wire_close(&w);
}

static void test_unknown_peer_is_lost(void **state)
{
    (void)state;
    struct wire w;
    wire_open(&w);
    struct frame_peer nobody = {.n_bytes = 3, .bytes = "abc"};
    zmq_msg_t payload;
    zmq_msg_init(&payload);
    assert_int_equal(frame_send(w.router, &nobody, 9, &payload, 0, &err), STATUS_LOST);
    wire_close(&w);
}

/* Nobody reads: the queue fills up, then a send says so at once or after its limit. */
static void test_full_queue(void **state)
{
    (void)state;
    struct wire w;
    wire_open(&w);
    enum status st = STATUS_OK;
    int n = 0;
    for (; st == STATUS_OK && n < 4 * FRAME_QUEUE_MAX; n++) {
        zmq_msg_t payload;
        zmq_msg_init(&payload);
        st = frame_send(w.dealer, NULL, 7, &payload, 0, &err);
    }
    assert_int_equal(st, STATUS_FULL);
    assert_in_range(n, FRAME_QUEUE_MAX, 3 * FRAME_QUEUE_MAX);
    zmq_msg_t payload;
    zmq_msg_init(&payload);
    assert_int_equal(frame_send(w.dealer, NULL, 7, &payload, 20, &err), STATUS_TIMEOUT);
    wire_close(&w);
}

static void test_malformed_multiparts(void **state)
{
    (void)state;
    struct wire w;
    wire_open(&w);
    struct frame_header good = {FRAME_MAGIC, FRAME_VERSION, 7, 3};
    struct frame_header magic = good, version = good, length = good, huge = good;
    magic.magic++;
    version.version++;
    length.payload_bytes = 4;
    huge.payload_bytes = UINT64_MAX;
    const struct {
        const char *expected;
        int n_parts;
        const void *parts[3];
        size_t sizes[3];
    } cases[] = {
        {"0 bytes, expected 16", 1, {""}, {0}},
        {"15 bytes, expected 16", 2, {&good, "abc"}, {15, 3}},
        {"17 bytes, expected 16", 2, {"01234567890123456", "abc"}, {17, 3}},
        {"begins with", 2, {&magic, "abc"}, {16, 3}},
        {"protocol version 2, this build speaks version 1", 2, {&version, "abc"}, {16, 3}},
        {"no payload part", 1, {&good}, {16}},
        {"more than one payload part", 3, {&good, "abc", "d"}, {16, 3, 1}},
        {"3 bytes, its header says 4", 2, {&length, "abc"}, {16, 3}},
        {"limit", 2, {&huge, "abc"}, {16, 3}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct frame frame;
        send_raw(&w, cases[i].n_parts, cases[i].parts, cases[i].sizes);
        assert_int_equal(frame_receive(w.router, &w.peer, &frame, 1000, &err), STATUS_INVALID);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("case %zu: '%s' has no '%s'", i, err.text, cases[i].expected);
        assert_true(w.peer.n_bytes > 0);
        send_good(&w, "after");
        expect_good(&w, "after");
    }
    wire_close(&w);
}

/* Every length of a good header's beginning. */
static void test_truncated_headers(void **state)
{
    (void)state;
    struct frame_header good = {FRAME_MAGIC, FRAME_VERSION, 7, 3}, out;
    for (size_t n = 0; n < sizeof(good); n++)
        assert_int_equal(frame_check_header(&good, n, 100, &out, &err), STATUS_INVALID);
    assert_int_equal(frame_check_header(&good, sizeof(good), 3, &out, &err), STATUS_OK);
    assert_int_equal(frame_check_header(&good, sizeof(good), 2, &out, &err), STATUS_INVALID);
}

static void test_messages(void **state)
{
    (void)state;
    struct wire w;
    struct message m;
    wire_open(&w);
    Mgpt__Ping ping = MGPT__PING__INIT;
    ping.value = 42;
    assert_int_equal(message_send(w.dealer, NULL, MESSAGE_PING, &ping.base, 0, &err), STATUS_OK);
    assert_int_equal(message_receive(w.router, &w.peer, &m, 1000, &err), STATUS_OK);
    assert_int_equal(m.type, MESSAGE_PING);
    assert_int_equal(m.ping->value, 42);
    message_clear(&m);
    send_good(&w, "\xff\xff\xff"); /* type 7, a Connect that is no protobuf */
    assert_int_equal(message_receive(w.router, &w.peer, &m, 1000, &err), STATUS_INVALID);
    assert_int_equal(m.type, MESSAGE_NONE);
    message_clear(&m);
    for (int type = -1; type <= MESSAGE_TYPES; type++) {
        bool known = type > MESSAGE_NONE && type < MESSAGE_TYPES;
        assert_int_equal(message_bytes_max(type) > 0, known);
        assert_int_equal(strcmp(message_type_name(type), "unknown") != 0, known);
        assert_int_equal(message_decode(&m, type, "", 0, &err), known ? STATUS_OK : STATUS_INVALID);
        message_clear(&m);
    }
    wire_close(&w);
}

/* Two bytes a row that become a struct each: decoding stops at the limit of the message, not of the
 * machine. */
static void test_message_limits(void **state)
{
    (void)state;
    struct message m;
    size_t n = message_bytes_max(MESSAGE_STEP_PLAN);
    char *bytes = test_malloc(n + 1);
    for (size_t i = 0; i < n; i += 2) {
        bytes[i] = 5 << 3 | 2;
        bytes[i + 1] = 0;
    }
    assert_int_equal(message_decode(&m, MESSAGE_STEP_PLAN, bytes, n + 1, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "limit"));
    message_decode(&m, MESSAGE_STEP_PLAN, bytes, n, &err);
    message_clear(&m);
    Mgpt__Connect connect = MGPT__CONNECT__INIT;
    memset(bytes, 'x', n);
    bytes[n] = '\0';
    connect.endpoint = bytes;
    struct wire w;
    wire_open(&w);
    assert_int_equal(message_send(w.dealer, NULL, MESSAGE_CONNECT, &connect.base, 0, &err),
                     STATUS_INVALID);
    wire_close(&w);
    test_free(bytes);
}

static void test_activations(void **state)
{
    (void)state;
    struct {
        struct activation_header header;
        float rows[6];
    } f = {{.epoch = 1, .number = 2, .n_tokens = 2, .hidden = 3, .dtype = DTYPE_F32},
           {1, 2, 3, 4, 5, 6}};
    struct activation_header out;
    const void *body;
    size_t n_body, n = activation_bytes(2, 3, DTYPE_F32);
    assert_int_equal(n, sizeof(f));
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err), STATUS_OK);
    assert_memory_equal(body, f.rows, sizeof(f.rows));
    for (size_t short_n = 0; short_n < n; short_n++)
        assert_int_equal(activation_decode(&out, &body, &n_body, &f, short_n, 3, DTYPE_F32, &err),
                         STATUS_INVALID);
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 4, DTYPE_F32, &err),
                     STATUS_INVALID);
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_BF16, &err),
                     STATUS_INVALID);
    f.header.n_tokens = UINT32_MAX;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    f.header.n_tokens = 2;
    f.header.status = STATUS_LOST;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    f.header.flags = ACTIVATION_FAILED;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    f.header.n_tokens = 0;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err), STATUS_OK);
    f.header.status = STATUS_INTERNAL + 1;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    f.header.status = STATUS_OK;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    f.header.flags = ACTIVATION_BESIDE << 1;
    assert_int_equal(activation_decode(&out, &body, &n_body, &f, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    /* Rows that go another way: whatever that way needs, within its limit. */
    char beside[sizeof(f.header) + ACTIVATION_BESIDE_BYTES_MAX + 1] = {0};
    f.header.flags = ACTIVATION_BESIDE;
    memcpy(beside, &f.header, sizeof(f.header));
    n = sizeof(beside) - 1;
    assert_int_equal(activation_decode(&out, &body, &n_body, beside, n, 3, DTYPE_F32, &err),
                     STATUS_OK);
    assert_int_equal(n_body, ACTIVATION_BESIDE_BYTES_MAX);
    assert_int_equal(activation_decode(&out, &body, &n_body, beside, n + 1, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
    f.header.flags = ACTIVATION_BESIDE | ACTIVATION_FAILED;
    memcpy(beside, &f.header, sizeof(f.header));
    assert_int_equal(activation_decode(&out, &body, &n_body, beside, n, 3, DTYPE_F32, &err),
                     STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_waits_are_bounded),
        cmocka_unit_test(test_unknown_peer_is_lost),
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_malformed_multiparts),
        cmocka_unit_test(test_truncated_headers),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_message_limits),
        cmocka_unit_test(test_activations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
