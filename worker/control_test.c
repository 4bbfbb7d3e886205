/*
 * control_test.c - workers (each control_run() in a thread of its own) against a controller made by
 * hand: the whole life of a pipeline, every refusal, failures that are passed on, limits of
 * waiting, and the rules of when a worker ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/log.h"
#include "model/units.h"
#include "proto/message.h"
#include "proto/plan.h"
#include "worker/control.h"
#include "worker/link_zmq.h"

#define MODEL MGPT_SOURCE_DIR "/tests/golden/v7b/model"

enum { WORKERS_MAX = 3, WAIT_MS = 20000, LAYERS = 4, VOCAB = 10240 };

static struct error err;

struct worker {
    pthread_t thread;
    struct control_options options;
    struct error err;
    enum status status;
    struct frame_peer peer;
};

/* The controller and its workers. */
struct house {
    char folder[64], endpoint[128], binds[WORKERS_MAX][128];
    void *zmq, *router;
    struct worker workers[WORKERS_MAX];
    struct curve_keys *keys; /* NULL: plain */
    int n;
};

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct stream_options options = {.n_threads = 1};
    worker->status = stream_create(&worker->options.stream, &options, &worker->err);
    if (worker->status == STATUS_OK)
        worker->status = control_run(&worker->options, &worker->err);
    stream_destroy(worker->options.stream);
    return NULL;
}

static void receive(struct house *h, int k, struct message *m)
{
    struct frame_peer peer;
    if (message_receive(h->router, &peer, m, WAIT_MS, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    if (h->workers[k].peer.n_bytes == 0)
        h->workers[k].peer = peer;
    assert_int_equal(peer.n_bytes, h->workers[k].peer.n_bytes);
    assert_memory_equal(peer.bytes, h->workers[k].peer.bytes, peer.n_bytes);
}

static void expect(struct house *h, int k, enum message_type type, struct message *m)
{
    receive(h, k, m);
    if (m->type == MESSAGE_FAILURE && type != MESSAGE_FAILURE)
        fail_msg("failure: %s", m->failure->text);
    assert_string_equal(message_type_name(m->type), message_type_name(type));
}

static void tell(struct house *h, int k, enum message_type type, const ProtobufCMessage *body)
{
    if (message_send(h->router, &h->workers[k].peer, type, body, 1000, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

/* h is all zero, or has keys. */
static void house_start(struct house *h, int n, Mgpt__Role role, int silence_ms)
{
    strcpy(h->folder, "/tmp/control_test.XXXXXX");
    assert_non_null(mkdtemp(h->folder));
    snprintf(h->endpoint, sizeof(h->endpoint), "ipc://%s/control", h->folder);
    h->zmq = zmq_ctx_new();
    h->router = zmq_socket(h->zmq, ZMQ_ROUTER);
    assert_int_equal(frame_configure_socket(h->router, &err), STATUS_OK);
    if (h->keys)
        assert_int_equal(curve_set_server(h->router, h->keys, &err), STATUS_OK);
    assert_int_equal(zmq_bind(h->router, h->endpoint), 0);
    h->n = n;
    for (int k = 0; k < n; k++) {
        struct message m;
        snprintf(h->binds[k], sizeof(h->binds[k]), "ipc://%s/link-%d", h->folder, k);
        h->workers[k].options = (struct control_options){.endpoint = h->endpoint,
                                                         .keys = h->keys,
                                                         .role = role,
                                                         .model_dir = MODEL,
                                                         .vq_dir = MODEL "/tokenizer",
                                                         .device = "cpu",
                                                         .silence_ms = silence_ms};
        assert_int_equal(pthread_create(&h->workers[k].thread, NULL, run_worker, &h->workers[k]),
                         0);
        expect(h, k, MESSAGE_HELLO, &m);
        assert_int_equal(m.hello->role, role);
        assert_int_equal(m.hello->pid, getpid());
        assert_string_equal(m.hello->version, MGPT_VERSION);
        message_clear(&m);
    }
}

static void house_close(struct house *h)
{
    Mgpt__Stop stop = MGPT__STOP__INIT;
    for (int k = 0; k < h->n; k++) {
        tell(h, k, MESSAGE_STOP, &stop.base);
        pthread_join(h->workers[k].thread, NULL);
        assert_int_equal(h->workers[k].status, STATUS_OK);
    }
    zmq_close(h->router);
    zmq_ctx_term(h->zmq);
    /* ZeroMQ leaves the files of its ipc sockets behind. */
    static const char *const names[] = {"control", "link-0", "link-1", "link-2"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", h->folder, names[i]);
        unlink(path);
    }
    rmdir(h->folder);
}

static void house_open(struct house *h, int n, Mgpt__Role role, int silence_ms)
{
    memset(h, 0, sizeof(*h));
    house_start(h, n, role, silence_ms);
}

static Mgpt__Load make_load(const struct house *h, int k, uint64_t epoch)
{
    Mgpt__Load load = MGPT__LOAD__INIT;
    int units = units_count(LAYERS);
    load.epoch = epoch;
    load.first_number = 1;
    load.stage_index = (uint32_t)k;
    load.n_stages = (uint32_t)h->n;
    load.first_unit = (uint32_t)(units * k / h->n);
    load.last_unit = (uint32_t)(units * (k + 1) / h->n - 1);
    load.compute = MGPT__COMPUTE__COMPUTE_F32;
    load.kv_blocks = 8;
    load.rows_max = 64;
    load.sequences_max = 4;
    load.link_bind = k > 0 ? (char *)h->binds[k] : "";
    load.activation_ms = 1000;
    return load;
}

static void connect_hop(struct house *h, int k, const Mgpt__Loaded *next)
{
    struct message m;
    Mgpt__Connect connect = MGPT__CONNECT__INIT;
    connect.endpoint = next->link_endpoint;
    connect.key = next->link_key;
    tell(h, k, MESSAGE_CONNECT, &connect.base);
    expect(h, k, MESSAGE_CONNECTED, &m);
    message_clear(&m);
}

static void load_all(struct house *h, uint64_t epoch)
{
    for (int k = 0; k < h->n; k++) {
        struct message m;
        Mgpt__Load load = make_load(h, k, epoch);
        tell(h, k, MESSAGE_LOAD, &load.base);
        expect(h, k, MESSAGE_LOADED, &m);
        assert_int_equal(m.loaded->epoch, epoch);
        assert_int_equal(strlen(m.loaded->digest), 64);
        assert_true(m.loaded->resident_bytes > 0);
        if (k > 0)
            connect_hop(h, k - 1, m.loaded);
        message_clear(&m);
    }
}

/* One row of n tokens that draws a code at its end. */
struct simple_plan {
    Mgpt__StepPlan plan;
    Mgpt__Row row, *rows[1];
    Mgpt__Output output, *outputs[1];
    Mgpt__Sampling sampling, *samplings[1];
    uint32_t tokens[64];
};

static void make_plan(struct simple_plan *p, uint64_t epoch, uint64_t number, uint64_t sequence,
                      uint32_t start, size_t n)
{
    memset(p, 0, sizeof(*p));
    mgpt__step_plan__init(&p->plan);
    mgpt__row__init(p->rows[0] = &p->row);
    mgpt__output__init(p->outputs[0] = &p->output);
    mgpt__sampling__init(p->samplings[0] = &p->sampling);
    p->plan.epoch = epoch;
    p->plan.number = number;
    p->plan.rows = p->rows;
    p->plan.n_rows = p->plan.n_sampling = 1;
    p->plan.sampling = p->samplings;
    p->row.sequence = sequence;
    p->row.start = start;
    p->row.tokens = p->tokens;
    p->row.n_tokens = n;
    p->row.outputs = p->outputs;
    p->row.n_outputs = 1;
    p->output.offset = (uint32_t)n - 1;
    p->output.set = MGPT__TOKEN_SET__SET_CODES;
    for (size_t i = 0; i < n; i++)
        p->tokens[i] = 9000 + (start + (uint32_t)i) % 50;
}

/* One result from each stage, in any order of arrival; returns that of the last stage in *last. */
static void expect_results(struct house *h, uint64_t number, struct message *last)
{
    for (int i = 0; i < h->n; i++) {
        struct frame_peer peer;
        struct message m;
        if (message_receive(h->router, &peer, &m, WAIT_MS, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        assert_int_equal(m.type, MESSAGE_STEP_RESULT);
        assert_int_equal(m.step_result->number, number);
        if ((int)m.step_result->stage_index == h->n - 1)
            *last = m;
        else
            message_clear(&m);
    }
}

static void send_to_all(struct house *h, const struct simple_plan *p)
{
    for (int k = 0; k < h->n; k++)
        tell(h, k, MESSAGE_STEP_PLAN, &p->plan.base);
}

static void expect_failure(struct house *h, int k, enum message_type type, const char *text)
{
    struct message m;
    expect(h, k, MESSAGE_FAILURE, &m);
    assert_int_equal(m.failure->type, type);
    if (!strstr(m.failure->text, text))
        fail_msg("'%s' has no '%s'", m.failure->text, text);
    message_clear(&m);
}

/* Three stages, several plans in flight at once; then everything again after a Reset, with the same
 * tokens. */
static void test_pipeline(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    uint32_t drawn[2][5];
    house_open(&h, 3, MGPT__ROLE__ROLE_STAGE, 10000);
    load_all(&h, 1);
    for (uint64_t round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < 5; i++) {
            struct simple_plan p;
            make_plan(&p, round + 1, i + 1, 1, (uint32_t)i * 10, 10);
            send_to_all(&h, &p);
        }
        int n_last = 0;
        for (int i = 0; i < 5 * h.n; i++) {
            struct frame_peer peer;
            assert_int_equal(message_receive(h.router, &peer, &m, WAIT_MS, &err), STATUS_OK);
            assert_int_equal(m.type, MESSAGE_STEP_RESULT);
            assert_int_equal(m.step_result->status, STATUS_OK);
            assert_true(m.step_result->busy_ns > 0);
            if (m.step_result->stage_index == 2) {
                assert_int_equal(m.step_result->number, n_last + 1);
                assert_int_equal(m.step_result->n_drawn, 1);
                drawn[round][n_last++] = m.step_result->drawn[0]->token;
            } else {
                assert_int_equal(m.step_result->n_link_bytes, 32 + 10 * 64 * 4);
            }
            message_clear(&m);
        }
        assert_int_equal(n_last, 5);
        Mgpt__Reset reset = MGPT__RESET__INIT;
        reset.epoch = round + 2;
        reset.first_number = 1;
        for (int k = 0; k < h.n; k++) {
            tell(&h, k, MESSAGE_RESET, &reset.base);
            expect(&h, k, MESSAGE_READY, &m);
            message_clear(&m);
        }
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof(drawn[0]));
    house_close(&h);
}

static void test_refusals(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct simple_plan p;
    house_open(&h, 1, MGPT__ROLE__ROLE_STAGE, 10000);
    make_plan(&p, 1, 1, 1, 0, 3);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect_failure(&h, 0, MESSAGE_STEP_PLAN, "before anything was loaded");
    Mgpt__Load load = make_load(&h, 0, 1);
    load.last_unit = 10;
    tell(&h, 0, MESSAGE_LOAD, &load.base);
    expect_failure(&h, 0, MESSAGE_LOAD, "units 0 to 10, the model has 0 to 9");
    Mgpt__Reset reset = MGPT__RESET__INIT;
    tell(&h, 0, MESSAGE_RESET, &reset.base);
    expect_failure(&h, 0, MESSAGE_RESET, "nothing is loaded");
    Mgpt__Connect connect = MGPT__CONNECT__INIT;
    connect.endpoint = "ipc:///nowhere";
    tell(&h, 0, MESSAGE_CONNECT, &connect.base);
    expect_failure(&h, 0, MESSAGE_CONNECT, "no next stage");
    Mgpt__Encode encode = MGPT__ENCODE__INIT;
    tell(&h, 0, MESSAGE_ENCODE, &encode.base);
    expect_failure(&h, 0, MESSAGE_ENCODE, "Encode is not for a stage worker");
    load_all(&h, 1);
    make_plan(&p, 1, 2, 1, 0, 3);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect_failure(&h, 0, MESSAGE_STEP_PLAN, "plan 2 of epoch 1, expected plan 1 of epoch 1");
    make_plan(&p, 9, 1, 1, 0, 3);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect_failure(&h, 0, MESSAGE_STEP_PLAN, "plan 1 of epoch 9");
    /* A wrong plan with the right number uses its number up. */
    make_plan(&p, 1, 1, 1, 5, 3);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect(&h, 0, MESSAGE_STEP_RESULT, &m);
    assert_int_equal(m.step_result->status, STATUS_INVALID);
    assert_non_null(strstr(m.step_result->text, "starts at position 5, it holds 0"));
    message_clear(&m);
    make_plan(&p, 1, 2, 1, 0, 3);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect(&h, 0, MESSAGE_STEP_RESULT, &m);
    assert_int_equal(m.step_result->status, STATUS_OK);
    assert_int_equal(m.step_result->kv_blocks_used, 1);
    message_clear(&m);
    Mgpt__Unload unload = MGPT__UNLOAD__INIT;
    tell(&h, 0, MESSAGE_UNLOAD, &unload.base);
    expect(&h, 0, MESSAGE_UNLOADED, &m);
    message_clear(&m);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect_failure(&h, 0, MESSAGE_STEP_PLAN, "before anything was loaded");
    house_close(&h);
}

/* What a Load would take is told without taking it, and comes true. */
static void test_room_is_told(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    Mgpt__AskRoom ask = MGPT__ASK_ROOM__INIT;
    house_open(&h, 1, MGPT__ROLE__ROLE_STAGE, 10000);
    tell(&h, 0, MESSAGE_ASK_ROOM, &ask.base);
    expect_failure(&h, 0, MESSAGE_ASK_ROOM, "no load");
    Mgpt__Load load = make_load(&h, 0, 1);
    ask.load = &load;
    load.last_unit = 10;
    tell(&h, 0, MESSAGE_ASK_ROOM, &ask.base);
    expect_failure(&h, 0, MESSAGE_ASK_ROOM, "units 0 to 10, the model has 0 to 9");
    load = make_load(&h, 0, 1);
    load.kv_blocks = 1;
    tell(&h, 0, MESSAGE_ASK_ROOM, &ask.base);
    expect(&h, 0, MESSAGE_ROOM, &m);
    Mgpt__Room room = *m.room;
    message_clear(&m);
    assert_true(room.free_bytes > 0);
    assert_true(room.free_bytes <= room.total_bytes);
    assert_int_equal(room.recording_bytes, 0);
    load = make_load(&h, 0, 1);
    tell(&h, 0, MESSAGE_LOAD, &load.base);
    expect(&h, 0, MESSAGE_LOADED, &m);
    assert_int_equal(m.loaded->kv_bytes, load.kv_blocks * room.block_bytes);
    /* Vectors and masks are not counted, nor what packing adds. */
    assert_in_range(m.loaded->activation_bytes, room.activation_bytes,
                    room.activation_bytes + (64 << 10));
    assert_in_range(m.loaded->weight_bytes, room.weight_bytes, 2 * room.weight_bytes);
    message_clear(&m);
    house_close(&h);
}

/* Bytes that are no message: a Failure comes back, and the worker goes on. */
static void test_malformed_frames(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    house_open(&h, 1, MGPT__ROLE__ROLE_STAGE, 10000);
    const struct frame_peer *peer = &h.workers[0].peer;
    zmq_send(h.router, peer->bytes, peer->n_bytes, ZMQ_SNDMORE);
    zmq_send(h.router, "what?", 5, 0);
    expect_failure(&h, 0, MESSAGE_NONE, "frame header has 5 bytes, expected 16");
    zmq_msg_t payload;
    zmq_msg_init_size(&payload, 4);
    memset(zmq_msg_data(&payload), 0xff, 4);
    assert_int_equal(frame_send(h.router, peer, MESSAGE_STEP_PLAN, &payload, 0, &err), STATUS_OK);
    expect_failure(&h, 0, MESSAGE_NONE, "StepPlan of 4 bytes cannot be decoded");
    Mgpt__Ping ping = MGPT__PING__INIT;
    ping.value = 77;
    tell(&h, 0, MESSAGE_PING, &ping.base);
    expect(&h, 0, MESSAGE_PONG, &m);
    assert_int_equal(m.pong->value, 77);
    message_clear(&m);
    house_close(&h);
}

/* Stage 0 cannot do a plan: the others report its text, nobody waits, and the next plan goes well.
 */
static void test_failure_is_passed_on(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct simple_plan p;
    house_open(&h, 3, MGPT__ROLE__ROLE_STAGE, 10000);
    load_all(&h, 1);
    make_plan(&p, 1, 1, 1, 5, 3);
    send_to_all(&h, &p);
    int64_t begin_ms = clock_monotonic_ms();
    expect_results(&h, 1, &m);
    assert_int_equal(m.step_result->status, STATUS_INVALID);
    assert_non_null(strstr(m.step_result->text, "stage 0: "));
    assert_in_range(clock_monotonic_ms() - begin_ms, 0,
                    250); /* shorter than the limit of waiting */
    message_clear(&m);
    make_plan(&p, 1, 2, 1, 0, 3);
    send_to_all(&h, &p);
    expect_results(&h, 2, &m);
    assert_int_equal(m.step_result->status, STATUS_OK);
    message_clear(&m);
    house_close(&h);
}

/* Stage 0 is not told of a plan: the next stage waits for its limit, fails it, and passes that on.
 */
static void test_activations_that_do_not_come(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct simple_plan p;
    house_open(&h, 3, MGPT__ROLE__ROLE_STAGE, 10000);
    load_all(&h, 1);
    make_plan(&p, 1, 1, 1, 0, 3);
    tell(&h, 1, MESSAGE_STEP_PLAN, &p.plan.base);
    expect(&h, 1, MESSAGE_STEP_RESULT, &m);
    assert_int_equal(m.step_result->status, STATUS_TIMEOUT);
    assert_true(m.step_result->wait_ns >= 1000u * 1000 * 1000);
    message_clear(&m);
    tell(&h, 2, MESSAGE_STEP_PLAN, &p.plan.base);
    expect(&h, 2, MESSAGE_STEP_RESULT, &m);
    assert_int_equal(m.step_result->status, STATUS_TIMEOUT);
    assert_non_null(
        strstr(m.step_result->text, "stage 1: activations of plan 1 did not come in 1000 ms"));
    message_clear(&m);
    /* The late frame is dropped, and does not spoil what follows. */
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect(&h, 0, MESSAGE_STEP_RESULT, &m);
    message_clear(&m);
    make_plan(&p, 1, 2, 2, 0, 3);
    send_to_all(&h, &p);
    expect_results(&h, 2, &m);
    assert_int_equal(m.step_result->status, STATUS_OK);
    message_clear(&m);
    house_close(&h);
}

/* With keys the control link and each hop are encrypted; a hop's key is its own and comes with
 * Loaded. */
static void test_pipeline_with_keys(void **state)
{
    (void)state;
    struct house h = {.n = 0};
    struct message m;
    struct simple_plan p;
    struct curve_keys keys;
    assert_int_equal(curve_generate(&keys, &err), STATUS_OK);
    h.keys = &keys;
    house_start(&h, 2, MGPT__ROLE__ROLE_STAGE, 60000);
    strcpy(h.binds[1], "tcp://127.0.0.1:*");
    load_all(&h, 1);
    make_plan(&p, 1, 1, 1, 0, 10);
    send_to_all(&h, &p);
    expect_results(&h, 1, &m);
    assert_int_equal(m.step_result->status, STATUS_OK);
    message_clear(&m);
    Mgpt__Load load = make_load(&h, 1, 1);
    tell(&h, 1, MESSAGE_LOAD, &load.base);
    expect(&h, 1, MESSAGE_LOADED, &m);
    assert_int_equal(strlen(m.loaded->link_key), CURVE_KEY_CHARS);
    assert_string_not_equal(m.loaded->link_key, keys.public_key);
    message_clear(&m);
    house_close(&h);
}

/* A hop that leads nowhere is a Failure after its limit; a plan without a hop fails at once. */
static void test_broken_links(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct simple_plan p;
    house_open(&h, 2, MGPT__ROLE__ROLE_STAGE, 60000);
    Mgpt__Load load = make_load(&h, 0, 1);
    tell(&h, 0, MESSAGE_LOAD, &load.base);
    expect(&h, 0, MESSAGE_LOADED, &m);
    assert_string_equal(m.loaded->units, "embed,0-1");
    message_clear(&m);
    make_plan(&p, 1, 1, 1, 0, 3);
    tell(&h, 0, MESSAGE_STEP_PLAN, &p.plan.base);
    expect(&h, 0, MESSAGE_STEP_RESULT, &m);
    assert_int_equal(m.step_result->status, STATUS_LOST);
    message_clear(&m);
    load = make_load(&h, 1, 2); /* another epoch than stage 0 */
    tell(&h, 1, MESSAGE_LOAD, &load.base);
    expect(&h, 1, MESSAGE_LOADED, &m);
    Mgpt__Connect connect = MGPT__CONNECT__INIT;
    connect.endpoint = m.loaded->link_endpoint;
    tell(&h, 0, MESSAGE_CONNECT, &connect.base);
    expect_failure(&h, 0, MESSAGE_CONNECT, "refused the link: epoch 1, expected 2");
    message_clear(&m);
    connect.endpoint = "tcp://10.0.0.1:9";
    tell(&h, 0, MESSAGE_CONNECT, &connect.base);
    expect_failure(&h, 0, MESSAGE_CONNECT, "not on this machine");
    load = make_load(&h, 1, 2);
    load.link_bind = "tcp://0.0.0.0:*"; /* other machines reach it: it has a key, asked or not */
    tell(&h, 1, MESSAGE_LOAD, &load.base);
    expect(&h, 1, MESSAGE_LOADED, &m);
    assert_int_equal(strlen(m.loaded->link_key), CURVE_KEY_CHARS);
    message_clear(&m);
    house_close(&h);
}

static void test_draws_without_a_model(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    static float logits[VOCAB];
    house_open(&h, 1, MGPT__ROLE__ROLE_STAGE, 10000);
    logits[9999] = 100; /* no code */
    logits[77] = 50;
    Mgpt__Sampling sampling = MGPT__SAMPLING__INIT;
    Mgpt__Draw draw = MGPT__DRAW__INIT;
    draw.id = 5;
    draw.logits = (ProtobufCBinaryData){sizeof(logits), (uint8_t *)logits};
    draw.n_seeds = 100;
    draw.set = MGPT__TOKEN_SET__SET_CODES;
    draw.sampling = &sampling;
    sampling.temperature = 1;
    tell(&h, 0, MESSAGE_DRAW, &draw.base);
    expect(&h, 0, MESSAGE_DRAWN, &m);
    assert_int_equal(m.drawn->id, 5);
    assert_int_equal(m.drawn->n_tokens, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(m.drawn->tokens[i], 77);
    message_clear(&m);
    draw.logits.len -= 4;
    tell(&h, 0, MESSAGE_DRAW, &draw.base);
    expect_failure(&h, 0, MESSAGE_DRAW, "a vocabulary of 10240 has 40960");
    draw.n_seeds = PLAN_DRAW_SEEDS_MAX + 1;
    tell(&h, 0, MESSAGE_DRAW, &draw.base);
    expect_failure(&h, 0, MESSAGE_DRAW, "65537 seeds");
    draw.sampling = NULL;
    tell(&h, 0, MESSAGE_DRAW, &draw.base);
    expect_failure(&h, 0, MESSAGE_DRAW, "without sampling");
    house_close(&h);
}

static void test_codec(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    static uint8_t rgb[32 * 16 * 3];
    house_open(&h, 1, MGPT__ROLE__ROLE_CODEC, 60000);
    Mgpt__Encode encode = MGPT__ENCODE__INIT;
    encode.id = 8;
    encode.width = 32;
    encode.height = 16;
    encode.rgb = (ProtobufCBinaryData){sizeof(rgb), rgb};
    tell(&h, 0, MESSAGE_ENCODE, &encode.base);
    expect_failure(&h, 0, MESSAGE_ENCODE, "not loaded");
    Mgpt__Load load = MGPT__LOAD__INIT;
    load.compute = MGPT__COMPUTE__COMPUTE_F32;
    tell(&h, 0, MESSAGE_LOAD, &load.base);
    expect(&h, 0, MESSAGE_LOADED, &m);
    assert_string_equal(m.loaded->units, "codec");
    assert_int_equal(m.loaded->activation_bytes, 0); /* on the CPU nothing is kept */
    message_clear(&m);
    tell(&h, 0, MESSAGE_ENCODE, &encode.base);
    expect(&h, 0, MESSAGE_ENCODED, &m);
    assert_int_equal(m.encoded->id, 8);
    assert_int_equal(m.encoded->n_codes, 2);
    Mgpt__Decode decode = MGPT__DECODE__INIT;
    uint32_t codes[2] = {m.encoded->codes[0], m.encoded->codes[1]};
    message_clear(&m);
    decode.id = 9;
    decode.width = 32;
    decode.height = 16;
    decode.codes = codes;
    decode.n_codes = 2;
    tell(&h, 0, MESSAGE_DECODE, &decode.base);
    expect(&h, 0, MESSAGE_DECODED, &m);
    assert_int_equal(m.decoded->rgb.len, sizeof(rgb));
    message_clear(&m);
    codes[1] = UINT32_MAX;
    tell(&h, 0, MESSAGE_DECODE, &decode.base);
    expect_failure(&h, 0, MESSAGE_DECODE, "code 1 is 4294967295");
    decode.n_codes = 1;
    tell(&h, 0, MESSAGE_DECODE, &decode.base);
    expect_failure(&h, 0, MESSAGE_DECODE, "1 codes for a picture of 32x16, expected 2");
    decode.width = UINT32_MAX;
    tell(&h, 0, MESSAGE_DECODE, &decode.base);
    expect_failure(&h, 0, MESSAGE_DECODE, "the limit of a side");
    encode.rgb.len--;
    tell(&h, 0, MESSAGE_ENCODE, &encode.base);
    expect_failure(&h, 0, MESSAGE_ENCODE, "1535 bytes of pixels");
    load.pixels_max = 256;
    tell(&h, 0, MESSAGE_LOAD, &load.base);
    expect(&h, 0, MESSAGE_LOADED, &m);
    message_clear(&m);
    encode.rgb.len++;
    tell(&h, 0, MESSAGE_ENCODE, &encode.base);
    expect_failure(&h, 0, MESSAGE_ENCODE, "and 256 pixels");
    load.pixels_max = 2048 * 2048 + 1;
    tell(&h, 0, MESSAGE_LOAD, &load.base);
    expect_failure(&h, 0, MESSAGE_LOAD, "pixels_max is 4194305");
    house_close(&h);
}

/* No ping, no plan: the worker ends by itself, as lost. */
static void test_silence_ends_a_worker(void **state)
{
    (void)state;
    struct house h;
    int64_t begin_ms = clock_monotonic_ms();
    house_open(&h, 1, MGPT__ROLE__ROLE_STAGE, 1000);
    pthread_join(h.workers[0].thread, NULL);
    assert_in_range(clock_monotonic_ms() - begin_ms, 1000, 10000);
    assert_int_equal(h.workers[0].status, STATUS_LOST);
    assert_non_null(strstr(h.workers[0].err.text, "nothing from the controller"));
    h.n = 0;
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_room_is_told),
        cmocka_unit_test(test_malformed_frames),
        cmocka_unit_test(test_failure_is_passed_on),
        cmocka_unit_test(test_activations_that_do_not_come),
        cmocka_unit_test(test_pipeline_with_keys),
        cmocka_unit_test(test_broken_links),
        cmocka_unit_test(test_draws_without_a_model),
        cmocka_unit_test(test_codec),
        cmocka_unit_test(test_silence_ends_a_worker),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
