/*
 * Goal: a pipeline forms in the right order, is ready only when every hop stands, forms anew around
 * a lost worker while the others keep their weights, and gives up at once when the first load is
 * refused. Time is the test's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/limits.h"
#include "daemon/stages_test_tools.h"

/* Takes one message off the control socket, as the loop does. */
static void take(struct bench *bench)
{
    struct message message;
    struct frame_peer peer;
    bool known = false;
    assert_int_equal(message_receive(bench->crew.crew.router, &peer, &message, FAKE_WAIT_MS, NULL),
                     STATUS_OK);
    for (int k = 0; k < N && !known; k++) {
        struct worker *worker = &bench->stages.list[k].worker;
        known = message.type == MESSAGE_HELLO &&
                worker_greet(worker, &peer, message.hello, bench->now_ms);
        if (!known && worker_is_peer(worker, &peer)) {
            stages_on_message(&bench->stages, k, &message, bench->now_ms);
            known = true;
        }
    }
    assert_true(known);
    message_clear(&message);
}

static void greet(struct bench *bench, int k)
{
    fake_worker_hello(&bench->workers[k], &bench->stages.list[k].worker);
    take(bench);
    advance(bench);
}

static void load(struct bench *bench, int k)
{
    fake_worker_expect(&bench->workers[k], MESSAGE_LOAD);
    fake_worker_loaded(&bench->workers[k], &bench->stages.list[k], bench->stages.epoch,
                       k > 0 ? "ipc:///tmp/x" : "");
    take(bench);
    advance(bench);
}

static void connect_link(struct bench *bench)
{
    fake_worker_expect(&bench->workers[0], MESSAGE_CONNECT);
    fake_worker_connected(&bench->workers[0]);
    take(bench);
    advance(bench);
}

static void form(struct bench *bench)
{
    advance(bench);
    for (int k = 0; k < N; k++)
        greet(bench, k);
    for (int k = 0; k < N; k++)
        load(bench, k);
    connect_link(bench);
    assert_true(bench->stages.ready);
}

static void test_forms_in_order(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    advance(&bench);
    greet(&bench, 0);
    struct message message = fake_worker_hear(&bench.workers[0], MESSAGE_LOAD);
    assert_int_equal(message.load->epoch, 1);
    assert_int_equal(message.load->first_unit, 0);
    assert_int_equal(message.load->last_unit, 4);
    assert_int_equal(message.load->n_stages, N);
    assert_int_equal(message.load->kv_blocks, KV_BLOCKS);
    assert_int_equal(message.load->rows_max, ROWS);
    assert_int_equal(message.load->first_number, 1);
    assert_string_equal(message.load->link_bind, "");
    message_clear(&message);
    greet(&bench, 1);
    message = fake_worker_hear(&bench.workers[1], MESSAGE_LOAD);
    assert_int_equal(message.load->stage_index, 1);
    assert_non_null(strstr(message.load->link_bind, "ipc://"));
    message_clear(&message);
    /* The first stage is not told where the second is before that one is loaded. */
    fake_worker_loaded(&bench.workers[0], &bench.stages.list[0], 1, "");
    take(&bench);
    advance(&bench);
    fake_worker_expect_silence(&bench.workers[0]);
    assert_false(bench.stages.ready);
    fake_worker_loaded(&bench.workers[1], &bench.stages.list[1], 1, "tcp://10.0.0.7:1234");
    take(&bench);
    advance(&bench);
    assert_false(bench.stages.ready);
    message = fake_worker_hear(&bench.workers[0], MESSAGE_CONNECT);
    assert_string_equal(message.connect->endpoint, "tcp://10.0.0.7:1234");
    message_clear(&message);
    fake_worker_connected(&bench.workers[0]);
    take(&bench);
    advance(&bench);
    assert_true(bench.stages.ready);
    tear_down(&bench);
}

static void say_room(struct bench *bench, int k, uint64_t free_bytes)
{
    struct message message = fake_worker_hear(&bench->workers[k], MESSAGE_ASK_ROOM);
    assert_non_null(message.ask_room->load);
    assert_int_equal(message.ask_room->load->stage_index, k);
    assert_true(message.ask_room->load->kv_blocks > 0);
    message_clear(&message);
    Mgpt__Room room = MGPT__ROOM__INIT;
    room.free_bytes = free_bytes;
    room.total_bytes = 1000;
    room.weight_bytes = 10;
    room.activation_bytes = 20;
    room.recording_bytes = 30;
    room.block_bytes = 7;
    fake_worker_say(&bench->workers[k], MESSAGE_ROOM, &room.base);
    take(bench);
    advance(bench);
}

/* Without a number of blocks nothing is loaded; nobody is asked before all have come. */
static void test_rooms_are_asked_first(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    bench.stages.options.kv_blocks = 0;
    advance(&bench);
    greet(&bench, 0);
    assert_false(stages_have_greeted(&bench.stages));
    assert_false(stages_ask_rooms(&bench.stages, bench.now_ms));
    fake_worker_expect_silence(&bench.workers[0]);
    greet(&bench, 1);
    assert_false(stages_ask_rooms(&bench.stages, bench.now_ms));
    say_room(&bench, 0, 900);
    assert_false(stages_ask_rooms(&bench.stages, bench.now_ms)); /* nobody is asked twice */
    say_room(&bench, 1, 800);
    assert_true(stages_ask_rooms(&bench.stages, bench.now_ms));
    const struct kv_size_stage *room = &bench.stages.list[1].room;
    assert_int_equal(room->need_bytes, 60);
    assert_int_equal(room->block_bytes, 7);
    assert_int_equal(room->free_bytes, 800);
    assert_string_equal(room->memory, bench.stages.list[0].room.memory); /* of one machine */
    assert_false(room->is_device);
    for (int k = 0; k < N; k++)
        fake_worker_expect_silence(&bench.workers[k]);
    stages_choose_blocks(&bench.stages, 5);
    advance(&bench);
    struct message message = fake_worker_hear(&bench.workers[0], MESSAGE_LOAD);
    assert_int_equal(message.load->kv_blocks, 5);
    message_clear(&message);
    tear_down(&bench);
}

static void test_a_stage_that_says_no_room_is_lost(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    bench.stages.options.kv_blocks = 0;
    advance(&bench);
    for (int k = 0; k < N; k++)
        greet(&bench, k);
    stages_ask_rooms(&bench.stages, bench.now_ms);
    bench.now_ms += STEP_WAIT_MS + 1;
    advance(&bench);
    assert_true(bench.stages.failed);
    assert_non_null(strstr(bench.stages.reason.text, "did not say what room it has"));
    tear_down(&bench);
}

static void test_another_checkpoint_is_refused(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    advance(&bench);
    greet(&bench, 0);
    fake_worker_expect(&bench.workers[0], MESSAGE_LOAD);
    struct stage other = bench.stages.list[0];
    other.last_unit = 3; /* a digest that is not that of units 0 to 4 */
    fake_worker_loaded(&bench.workers[0], &other, 1, "");
    take(&bench);
    assert_true(bench.stages.failed);
    assert_non_null(strstr(bench.stages.reason.text, "digests differ"));
    tear_down(&bench);
}

static void test_first_refusal_is_the_end(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    advance(&bench);
    greet(&bench, 0);
    fake_worker_expect(&bench.workers[0], MESSAGE_LOAD);
    fake_worker_fail(&bench.workers[0], MESSAGE_LOAD, STATUS_INVALID, 0, 0);
    take(&bench);
    assert_true(bench.stages.failed);
    assert_int_equal(bench.stages.reason.code, STATUS_INVALID);
    assert_non_null(strstr(bench.stages.reason.text, "as the test wants it"));
    tear_down(&bench);
}

static void test_lost_worker_is_replaced_and_the_other_keeps_its_weights(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    form(&bench);
    int pid = (int)bench.stages.list[1].worker.process.pid;
    stages_lose(&bench.stages, 1, bench.now_ms, "the test");
    assert_false(bench.stages.ready);
    assert_false(bench.stages.failed);
    assert_int_equal(bench.stages.epoch, 2);
    advance(&bench); /* the first restart comes at once */
    assert_true(bench.stages.list[1].worker.process.pid > 0);
    assert_int_not_equal(bench.stages.list[1].worker.process.pid, pid);
    struct message message = fake_worker_hear(&bench.workers[0], MESSAGE_RESET);
    assert_int_equal(message.reset->epoch, 2);
    assert_int_equal(message.reset->first_number, 1);
    message_clear(&message);
    fake_worker_ready(&bench.workers[0], 2);
    take(&bench);
    fake_worker_close(&bench.workers[1]);
    fake_worker_open(&bench.workers[1], &bench.crew);
    greet(&bench, 1);
    load(&bench, 1);
    assert_false(bench.stages.ready);
    connect_link(&bench);
    assert_true(bench.stages.ready);
    tear_down(&bench);
}

static void test_pauses_grow(void **state)
{
    struct bench bench;
    int64_t last_ms = 0;
    (void)state;
    bench_open(&bench, NULL);
    form(&bench);
    for (int i = 0; i < 10; i++) {
        struct worker *worker = &bench.stages.list[0].worker;
        stages_lose(&bench.stages, 0, bench.now_ms, "the test");
        int64_t pause_ms = worker->restart_ms - bench.now_ms;
        assert_true(pause_ms >= last_ms);
        assert_true(pause_ms <= WORKER_RESTART_PAUSE_MAX_MS);
        if (pause_ms > 0) {
            bench.now_ms += pause_ms - 1;
            advance(&bench);
            assert_int_equal(worker->process.pid, 0);
            bench.now_ms++;
        }
        advance(&bench);
        assert_true(worker->process.pid > 0);
        last_ms = pause_ms;
    }
    assert_int_equal(last_ms, WORKER_RESTART_PAUSE_MAX_MS);
    tear_down(&bench);
}

static void test_deadlines(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    form(&bench);
    /* Hello does not come. */
    stages_lose(&bench.stages, 1, bench.now_ms, "the test");
    advance(&bench);
    int life = bench.stages.list[1].worker.life;
    fake_worker_expect(&bench.workers[0], MESSAGE_RESET);
    fake_worker_ready(&bench.workers[0], bench.stages.epoch);
    take(&bench);
    bench.now_ms += WORKER_HELLO_WAIT_MS;
    bench.stages.list[0].worker.heard_ms = bench.now_ms;
    advance(&bench);
    assert_int_equal(bench.stages.list[1].worker.life, life);
    bench.now_ms += 1;
    advance(&bench);
    assert_non_null(strstr(bench.stages.reason.text, "hello"));
    /* A Reset is not answered. */
    advance(&bench);
    fake_worker_expect(&bench.workers[0], MESSAGE_RESET);
    bench.now_ms += STEP_WAIT_MS + 1;
    advance(&bench);
    assert_non_null(strstr(bench.stages.reason.text, "reset"));
    tear_down(&bench);
}

static void test_silent_worker_is_lost(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    form(&bench);
    bench.now_ms += STEP_WAIT_MS + WORKER_PING_MS;
    advance(&bench);
    assert_true(bench.stages.ready);
    bench.stages.list[0].worker.heard_ms = bench.now_ms;
    bench.now_ms++;
    advance(&bench);
    assert_false(bench.stages.ready);
    assert_non_null(strstr(bench.stages.reason.text, "pings"));
    tear_down(&bench);
}

static void test_refused_plan_begins_an_epoch(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    form(&bench);
    fake_worker_fail(&bench.workers[1], MESSAGE_STEP_PLAN, STATUS_INVALID, 7,
                     3); /* of an epoch long over */
    take(&bench);
    assert_int_equal(bench.stages.epoch, 1);
    fake_worker_fail(&bench.workers[1], MESSAGE_STEP_PLAN, STATUS_INVALID, 1, 3);
    take(&bench);
    assert_int_equal(bench.stages.epoch, 2);
    advance(&bench);
    for (int k = 0; k < N; k++) {
        fake_worker_expect(&bench.workers[k], MESSAGE_RESET);
        fake_worker_ready(&bench.workers[k], 2);
        take(&bench);
    }
    advance(&bench); /* nobody was killed, so the link stands */
    assert_true(bench.stages.ready);
    tear_down(&bench);
}

/* Stages that would give other pictures than one of them alone. */
static void test_unlike_devices_are_refused(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    advance(&bench);
    for (int k = 0; k < N; k++) {
        static const char *const fingerprints[] = {"device=cuda path=sm_90", "device=cpu path=amx"};
        greet(&bench, k);
        fake_worker_expect(&bench.workers[k], MESSAGE_LOAD);
        fake_worker_loaded_with(&bench.workers[k], &bench.stages.list[k], 1,
                                k > 0 ? "ipc:///tmp/x" : "", fingerprints[k]);
        take(&bench);
    }
    assert_true(bench.stages.failed);
    assert_string_equal(bench.stages.reason.text,
                        "stage 0.0 (device=cuda path=sm_90) and stage 0.1 (device=cpu path=amx) "
                        "round differently: give all stages of a pipeline devices of one kind "
                        "(mgpt inspect device lists them)");
    tear_down(&bench);
}

static void greet_with(struct bench *bench, int k, uint32_t nccl_version, const char *host)
{
    fake_worker_hello_with(&bench->workers[k], &bench->stages.list[k].worker, nccl_version, host);
    take(bench);
    advance(bench);
}

static void test_nccl_of_other_versions_is_refused(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    advance(&bench);
    greet_with(&bench, 0, 22803, "a");
    fake_worker_expect(&bench.workers[0], MESSAGE_LOAD);
    greet_with(&bench, 1, 22705, "b");
    assert_true(bench.stages.failed);
    assert_string_equal(bench.stages.reason.text,
                        "stage 0.1 on host b has NCCL 2.27.5, stage 0.0 on host a has 2.28.3: "
                        "install the same NCCL for both, or use --link zmq");
    tear_down(&bench);
}

/* Both have NCCL: it is chosen, unless ZeroMQ was asked for; one without: ZeroMQ, or a refusal. */
static void test_choice_of_links(void **state)
{
    (void)state;
    static const struct {
        enum engine_link link;
        uint32_t versions[N];
        const char *expected;
    } cases[] = {{ENGINE_LINK_AUTO, {22803, 22803}, "nccl"},
                 {ENGINE_LINK_NCCL, {22803, 22803}, "nccl"},
                 {ENGINE_LINK_ZMQ, {22803, 22705}, "zmq"},
                 {ENGINE_LINK_AUTO, {22803, 0}, "zmq"},
                 {ENGINE_LINK_NCCL, {22803, 0}, NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench bench;
        bench_open(&bench, NULL);
        bench.stages.options.link = cases[i].link;
        advance(&bench);
        for (int k = 0; k < N; k++)
            greet_with(&bench, k, cases[i].versions[k], "a");
        assert_int_equal(bench.stages.failed, cases[i].expected == NULL);
        for (int k = 0; k < N && cases[i].expected; k++)
            load(&bench, k);
        if (cases[i].expected) {
            struct message message = fake_worker_hear(&bench.workers[0], MESSAGE_CONNECT);
            assert_int_equal(message.connect->link, strcmp(cases[i].expected, "nccl") == 0);
            message_clear(&message);
            fake_worker_connected(&bench.workers[0]);
            take(&bench);
            advance(&bench);
            assert_true(bench.stages.ready);
            assert_string_equal(stages_link_name(&bench.stages, 0), cases[i].expected);
        } else {
            assert_non_null(strstr(bench.stages.reason.text, "--link zmq does without"));
        }
        tear_down(&bench);
    }
}

/* The link is lost, both workers live: a new epoch, and only the link is made anew. */
static void test_lost_link_is_formed_anew(void **state)
{
    struct bench bench;
    (void)state;
    bench_open(&bench, NULL);
    form(&bench);
    fake_worker_fail(&bench.workers[0], MESSAGE_CONNECT, STATUS_LOST, 1, 0);
    take(&bench);
    assert_int_equal(bench.stages.epoch, 2);
    advance(&bench);
    for (int k = 0; k < N; k++) {
        fake_worker_expect(&bench.workers[k], MESSAGE_RESET);
        assert_int_equal(bench.stages.list[k].worker.life, 1);
        fake_worker_ready(&bench.workers[k], 2);
        take(&bench);
    }
    advance(&bench);
    assert_false(bench.stages.ready);
    connect_link(&bench);
    assert_true(bench.stages.ready);
    assert_int_equal(bench.stages.epoch, 2);
    /* The same again, told after the epoch had ended for another reason. */
    stages_begin_epoch(&bench.stages, "the test");
    fake_worker_fail(&bench.workers[0], MESSAGE_CONNECT, STATUS_LOST, 2, 0);
    take(&bench);
    assert_int_equal(bench.stages.epoch, 3);
    advance(&bench);
    for (int k = 0; k < N; k++) {
        fake_worker_expect(&bench.workers[k], MESSAGE_RESET);
        fake_worker_ready(&bench.workers[k], 3);
        take(&bench);
    }
    advance(&bench);
    connect_link(&bench);
    assert_true(bench.stages.ready);
    tear_down(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_in_order),
        cmocka_unit_test(test_rooms_are_asked_first),
        cmocka_unit_test(test_a_stage_that_says_no_room_is_lost),
        cmocka_unit_test(test_another_checkpoint_is_refused),
        cmocka_unit_test(test_first_refusal_is_the_end),
        cmocka_unit_test(test_lost_worker_is_replaced_and_the_other_keeps_its_weights),
        cmocka_unit_test(test_pauses_grow),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_silent_worker_is_lost),
        cmocka_unit_test(test_refused_plan_begins_an_epoch),
        cmocka_unit_test(test_unlike_devices_are_refused),
        cmocka_unit_test(test_nccl_of_other_versions_is_refused),
        cmocka_unit_test(test_choice_of_links),
        cmocka_unit_test(test_lost_link_is_formed_anew),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
