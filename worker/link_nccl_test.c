/*
 * Goal: rows pass a hop by NCCL bit for bit, whatever their size and however many are on their way;
 * a peer that is gone, or rows that never come, end in failed frames within a named limit and never
 * in other rows; the listening end takes the next peer. Both ends live in this process, on two
 * devices, and take turns.
 *
 * Skipped where the build or the machine has no two CUDA devices with NCCL (it runs on the
 * simulated device).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "kernels/device.h"
#include "worker/communicator.h"
#include "worker/link_nccl.h"
#include "worker/link_zmq.h"

/* Rows of MANY tokens do not go before they are received. */
enum { HIDDEN = 10, TOKENS_MAX = 900, MANY = 800, WAIT_MS = 20000, SHORT_ROWS_MS = 300 };

static struct error err;

struct hop {
    char folder[64], bind[128];
    void *zmq;
    struct stream *up_stream, *down_stream;
    struct link *up, *down;
    float *rows; /* [TOKENS_MAX, HIDDEN] on the upstream device */
    int rows_ms, down_tokens_max, down_device;
};

static struct stream *open_stream(int device)
{
    struct stream *stream;
    struct stream_options options = {.n_threads = 1, .device = DEVICE_CUDA, .device_index = device};
    if (stream_create(&stream, &options, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return stream;
}

static const struct link_shape shape = {.epoch = 3, .hidden = HIDDEN, .dtype = DTYPE_F32};

static struct link_nccl_options options_of(const struct hop *h, struct stream *stream)
{
    return (struct link_nccl_options){.stream = stream,
                                      .rows_bytes_max = TOKENS_MAX * HIDDEN * sizeof(float),
                                      .rows_ms = h->rows_ms};
}

/* A communicator belongs to the device that its thread uses: the one that was opened last. The two
 * ends begin to form at different times, so each gets its device then. */
static void use_device(int device)
{
    struct device_facts facts;
    assert_int_equal(cuda_device_describe(&facts, device, &err), STATUS_OK);
}

static void connect_up(struct hop *h)
{
    struct link_nccl_options options = options_of(h, h->up_stream);
    struct link *frames;
    assert_int_equal(link_zmq_connect(&frames, h->zmq, h->bind, "", &shape, &err), STATUS_OK);
    assert_int_equal(link_nccl_connect(&h->up, frames, &options, &err), STATUS_OK);
    use_device(0);
    if (link_greet(h->up, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

/* One look of the listening end, where nothing but greetings comes. */
static void look_down(struct hop *h)
{
    struct link_frame frame;
    use_device(h->down_device);
    enum status st = link_receive(h->down, &frame, &err);
    assert_true(st == STATUS_TIMEOUT || st == STATUS_INVALID);
}

static enum status form(struct hop *h)
{
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    enum status st;
    do {
        look_down(h);
        use_device(0);
        st = link_poll_greeted(h->up, &err);
    } while (st == STATUS_TIMEOUT && clock_monotonic_ms() < end_ms);
    return st;
}

static void listen_down(struct hop *h)
{
    struct link_nccl_options options = options_of(h, h->down_stream);
    options.rows_bytes_max = (size_t)h->down_tokens_max * HIDDEN * sizeof(float);
    struct link *frames;
    assert_int_equal(link_zmq_listen(&frames, h->zmq, h->bind, false, &shape, &err), STATUS_OK);
    assert_int_equal(link_nccl_listen(&h->down, frames, &options, &err), STATUS_OK);
}

static void open_ends(struct hop *h, int rows_ms, int down_tokens_max, int down_device)
{
    memset(h, 0, sizeof(*h));
    h->down_device = down_device;
    h->rows_ms = rows_ms;
    h->down_tokens_max = down_tokens_max;
    strcpy(h->folder, "/tmp/link_nccl_test.XXXXXX");
    assert_non_null(mkdtemp(h->folder));
    snprintf(h->bind, sizeof(h->bind), "ipc://%s/link", h->folder);
    h->zmq = zmq_ctx_new();
    h->up_stream = open_stream(0);
    h->down_stream = open_stream(down_device);
    assert_int_equal(
        stream_alloc(h->up_stream, (void **)&h->rows, TOKENS_MAX * HIDDEN * sizeof(float), &err),
        STATUS_OK);
    listen_down(h);
    connect_up(h);
}

static void open_hop_of(struct hop *h, int rows_ms, int down_tokens_max)
{
    open_ends(h, rows_ms, down_tokens_max, 1);
    if (form(h) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void open_hop(struct hop *h, int rows_ms)
{
    open_hop_of(h, rows_ms, TOKENS_MAX);
}

static void close_hop(struct hop *h)
{
    char path[128];
    link_abandon(h->up);
    link_abandon(h->down);
    link_destroy(h->up);
    link_destroy(h->down);
    stream_free(h->up_stream, h->rows, TOKENS_MAX * HIDDEN * sizeof(float));
    stream_destroy(h->up_stream);
    stream_destroy(h->down_stream);
    zmq_ctx_term(h->zmq);
    snprintf(path, sizeof(path), "%s/link", h->folder);
    unlink(path);
    rmdir(h->folder);
}

static float value(uint64_t number, int i)
{
    return (float)number * 1000.0f + (float)(i % 997);
}

/* The rows of plan `number`; the memory is filled with others as soon as it is free. */
static void send_plan(struct hop *h, uint64_t number, int n_tokens)
{
    float *host = malloc(TOKENS_MAX * HIDDEN * sizeof(float));
    for (int i = 0; i < n_tokens * HIDDEN; i++)
        host[i] = value(number, i);
    stream_upload(h->up_stream, h->rows, host, (size_t)n_tokens * HIDDEN * sizeof(float));
    if (link_send(h->up, number, (uint32_t)n_tokens, h->rows, h->up_stream, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    memset(host, 0x7f, TOKENS_MAX * HIDDEN * sizeof(float));
    stream_upload(h->up_stream, h->rows, host, TOKENS_MAX * HIDDEN * sizeof(float));
    free(host);
}

/* The next frame; both ends go on meanwhile. */
static void next_frame(struct hop *h, struct link_frame *frame)
{
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    enum status st;
    while ((st = link_receive(h->down, frame, &err)) != STATUS_OK) {
        if (st != STATUS_TIMEOUT)
            fail_msg("%s", err.text);
        assert_true(clock_monotonic_ms() < end_ms);
        if (h->up)
            link_tend(h->up, NULL);
        link_tend(h->down, NULL);
    }
}

static void expect_rows(struct hop *h, uint64_t number, int n_tokens)
{
    struct link_frame frame;
    next_frame(h, &frame);
    if (frame.header.flags)
        fail_msg("plan %d failed: %s", (int)number, frame.text);
    assert_int_equal(frame.header.number, number);
    assert_int_equal(frame.header.n_tokens, n_tokens);
    if (n_tokens > 0) {
        size_t n_bytes = (size_t)n_tokens * HIDDEN * sizeof(float);
        float *host = malloc(n_bytes);
        assert_true(frame.on_device);
        stream_download(h->down_stream, host, frame.rows, n_bytes);
        for (int i = 0; i < n_tokens * HIDDEN; i++)
            if (host[i] != value(number, i))
                fail_msg("plan %d: number %d is %g", (int)number, i, (double)host[i]);
        free(host);
    }
    link_frame_clear(&frame);
}

static void expect_loss(struct hop *h, uint64_t number, const char *text)
{
    struct link_frame frame;
    next_frame(h, &frame);
    assert_int_equal(frame.header.number, number);
    assert_int_equal(frame.header.flags, ACTIVATION_FAILED);
    assert_int_equal(frame.header.status, STATUS_LOST);
    assert_null(frame.rows);
    if (!strstr(frame.text, text))
        fail_msg("'%s' has no '%s'", frame.text, text);
    link_frame_clear(&frame);
}

static void test_sizes(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 63, 0, 64, 65, 0, 257, 899, TOKENS_MAX, 1};
    struct hop h;
    open_hop(&h, 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        send_plan(&h, i + 1, sizes[i]);
        expect_rows(&h, i + 1, sizes[i]);
    }
    close_hop(&h);
}

/* The sending end runs ahead until there is no room, failed plans in between keep their place. */
static void test_many_on_their_way(void **state)
{
    (void)state;
    struct hop h;
    uint64_t sent = 0, received = 0;
    open_hop(&h, 0);
    for (int round = 0; round < 5; round++) {
        int n = 0;
        while (link_has_room(h.up)) {
            sent++;
            send_plan(&h, sent, MANY + (int)sent * 7 % 100);
            assert_true(++n <= LINK_NCCL_SLOTS);
        }
        assert_int_equal(n, LINK_NCCL_SLOTS);
        assert_int_equal(link_send(h.up, sent + 1, 1, h.rows, h.up_stream, &err), STATUS_FULL);
        assert_int_equal(link_send_failed(h.up, ++sent, STATUS_NOMEM, "as it is", &err), STATUS_OK);
        while (received + 1 < sent) {
            received++;
            expect_rows(&h, received, MANY + (int)received * 7 % 100);
        }
        struct link_frame frame;
        next_frame(&h, &frame);
        assert_int_equal(frame.header.number, ++received);
        assert_int_equal(frame.header.status, STATUS_NOMEM);
        assert_string_equal(frame.text, "as it is");
        link_frame_clear(&frame);
        link_tend(h.up, NULL);
    }
    close_hop(&h);
}

/* What was on its way when an epoch ended is taken and forgotten; the next one is not touched. */
static void test_epochs(void **state)
{
    (void)state;
    struct hop h;
    struct link_frame frame;
    open_hop(&h, 0);
    send_plan(&h, 1, 5);
    send_plan(&h, 2, 6);
    link_set_epoch(h.up, 4);
    link_set_epoch(h.down, 4);
    send_plan(&h, 1, 7);
    for (int stale = 0; stale < 2;) {
        link_tend(h.up, NULL);
        enum status st = link_receive(h.down, &frame, &err);
        stale += st == STATUS_INVALID;
        assert_int_not_equal(st, STATUS_OK);
    }
    expect_rows(&h, 1, 7);
    close_hop(&h);
}

/* The sending end goes away after its announcement: failed frames, and the next peer is taken. */
static void test_lost_peer_and_the_next(void **state)
{
    (void)state;
    struct hop h;
    open_hop(&h, 0);
    for (uint64_t round = 0; round < 3; round++) {
        send_plan(&h, 1, 9);
        expect_rows(&h, 1, 9);
        send_plan(&h, 2, MANY);
        send_plan(&h, 3, 9);
        link_destroy(h.up);
        h.up = NULL;
        expect_loss(&h, 2, "peer");
        expect_loss(&h, 3, "peer");
        connect_up(&h);
        if (form(&h) != STATUS_OK)
            fail_msg("%s", err.text);
    }
    close_hop(&h);
}

/* Losses that NCCL does not see end after the limit, and the sending end is told. */
static void test_rows_that_never_come(void **state)
{
    (void)state;
    struct hop h;
    setenv("SIMGPU_NCCL", "silent", 1);
    open_hop(&h, SHORT_ROWS_MS);
    send_plan(&h, 1, MANY);
    link_destroy(h.up);
    h.up = NULL;
    int64_t begin_ms = clock_monotonic_ms();
    expect_loss(&h, 1, "did not bring the rows of plan 1");
    assert_true(clock_monotonic_ms() - begin_ms >= SHORT_ROWS_MS);
    unsetenv("SIMGPU_NCCL");
    close_hop(&h);
}

/* The listening end gives up: the sending end hears it once, and from then on sends failed frames
 * in the place of rows. */
static void test_the_other_end_is_told(void **state)
{
    (void)state;
    struct hop h;
    int n_told = 0;
    setenv("SIMGPU_NCCL", "silent", 1);
    open_hop_of(&h, 0, 10); /* takes less than the other end sends */
    send_plan(&h, 1, 10);
    expect_rows(&h, 1, 10);
    send_plan(&h, 2, 11);
    expect_loss(&h, 2, "payload 1 of 440 bytes was announced");
    int64_t end_ms = clock_monotonic_ms() + WAIT_MS;
    while (!n_told && clock_monotonic_ms() < end_ms)
        n_told += link_tend(h.up, &err) == STATUS_LOST;
    assert_int_equal(n_told, 1);
    assert_non_null(strstr(err.text, "the other end: payload 1"));
    assert_int_equal(link_tend(h.up, &err), STATUS_OK);
    assert_true(link_has_room(h.up));
    assert_int_equal(link_send(h.up, 3, 1, h.rows, h.up_stream, &err), STATUS_LOST);
    expect_loss(&h, 3, "payload 1");
    unsetenv("SIMGPU_NCCL");
    close_hop(&h);
}

/* An offer that cannot be met is refused in words; without one the rows come in the frames. */
static void test_offers(void **state)
{
    (void)state;
    struct hop h;
    struct link *frames;
    open_hop(&h, 0);
    setenv("SIMGPU_NCCL_VERSION", "22703", 1);
    link_destroy(h.up);
    connect_up(&h);
    unsetenv("SIMGPU_NCCL_VERSION");
    enum status st = form(&h);
    if (st != STATUS_OK) /* a real library has one version for both */
        assert_non_null(strstr(err.text, "NCCL 22703 there, 22803 here"));
    link_destroy(h.up);
    assert_int_equal(link_zmq_connect(&frames, h.zmq, h.bind, "", &shape, &err), STATUS_OK);
    h.up = frames;
    assert_int_equal(link_greet(h.up, &err), STATUS_OK);
    assert_int_equal(form(&h), STATUS_OK);
    stream_upload(h.up_stream, h.rows, &(float[HIDDEN]){1, 2, 3}, HIDDEN * sizeof(float));
    assert_int_equal(link_send(h.up, 1, 1, h.rows, h.up_stream, &err), STATUS_OK);
    struct link_frame frame;
    next_frame(&h, &frame);
    assert_false(frame.on_device);
    assert_memory_equal(frame.rows, ((float[]){1, 2, 3}), 3 * sizeof(float));
    link_frame_clear(&frame);
    close_hop(&h);
}

/* NCCL refuses two ranks on one device, unless they are told to be on two hosts. */
static void test_one_device(void **state)
{
    (void)state;
    struct hop h;
    open_ends(&h, 0, TOKENS_MAX, 0);
    enum status st = form(&h);
    assert_int_not_equal(st, STATUS_OK);
    assert_non_null(strstr(err.text, "uplicate GPU"));
    link_destroy(h.up);
    setenv("NCCL_HOSTID", "one", 1);
    connect_up(&h);
    setenv("NCCL_HOSTID", "two", 1);
    if (form(&h) != STATUS_OK)
        fail_msg("%s", err.text);
    unsetenv("NCCL_HOSTID");
    send_plan(&h, 1, 9);
    expect_rows(&h, 1, 9);
    close_hop(&h);
}

static bool is_possible(void)
{
    int n = 0;
    struct error why = {.text = "one CUDA device"};
    if (cuda_device_count(&n, &why) == STATUS_OK && n >= 2 && communicator_version(&why) != 0)
        return true;
    printf("skipped: %s\n", why.text);
    return false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_many_on_their_way),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_lost_peer_and_the_next),
        cmocka_unit_test(test_rows_that_never_come),
        cmocka_unit_test(test_the_other_end_is_told),
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_one_device),
    };
    log_set_level(LOG_ERROR);
    return is_possible() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
