/*
 * Goal: a stage of another machine waits for whoever comes, is told and tells addresses that can be
 * reached, is sent away alone when it does not fit, and is replaced when it is lost. Time is the
 * test's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/limits.h"
#include "daemon/stages_remote.h"
#include "daemon/stages_test_tools.h"

/* remote: which of the two stages, "01", "10", "11". */
static void set_up(struct bench *bench, const char *remote)
{
    const bool is_remote[N] = {remote[0] == '1', remote[1] == '1'};
    bench_open(bench, is_remote);
}

/* Worker k says hello; as one of our own, or as one that came in by the door from `address`. */
static void greet(struct bench *bench, int k, const char *address)
{
    struct worker *worker = &bench->stages.list[k].worker;
    struct message message;
    struct frame_peer peer;
    fake_worker_hello(&bench->workers[k], worker);
    assert_int_equal(message_receive(bench->crew.crew.router, &peer, &message, FAKE_WAIT_MS, NULL),
                     STATUS_OK);
    if (address) {
        struct remote_worker remote = {.peer = peer, .pid = 77, .host = "far", .device = "cpu"};
        strcpy(remote.peer.address, address);
        assert_true(stages_want_worker(&bench->stages, k, bench->now_ms));
        stages_admit(&bench->stages, k, &remote, bench->now_ms);
    } else {
        assert_true(worker_greet(worker, &peer, message.hello, bench->now_ms));
    }
    message_clear(&message);
    advance(bench);
}

/* Takes one message of worker k off the control socket. */
static void take(struct bench *bench, int k)
{
    struct message message;
    struct frame_peer peer;
    assert_int_equal(message_receive(bench->crew.crew.router, &peer, &message, FAKE_WAIT_MS, NULL),
                     STATUS_OK);
    assert_true(worker_is_peer(&bench->stages.list[k].worker, &peer));
    stages_on_message(&bench->stages, k, &message, bench->now_ms);
    message_clear(&message);
    advance(bench);
}

static void expect_bind(struct bench *bench, int k, const char *expected)
{
    struct message message = fake_worker_hear(&bench->workers[k], MESSAGE_LOAD);
    if (expected)
        assert_string_equal(message.load->link_bind, expected);
    message_clear(&message);
}

/* Worker k is greeted and told to load; bind: where it shall listen, NULL: anywhere. */
static void join(struct bench *bench, int k, const char *address, const char *bind)
{
    greet(bench, k, address);
    expect_bind(bench, k, bind);
}

static void say_loaded(struct bench *bench, int k, const char *endpoint)
{
    fake_worker_loaded(&bench->workers[k], &bench->stages.list[k], bench->stages.epoch, endpoint);
    take(bench, k);
}

static void expect_connect(struct bench *bench, const char *endpoint)
{
    struct message message = fake_worker_hear(&bench->workers[0], MESSAGE_CONNECT);
    assert_string_equal(message.connect->endpoint, endpoint);
    message_clear(&message);
}

static void connect_hop(struct bench *bench, const char *endpoint)
{
    expect_connect(bench, endpoint);
    fake_worker_connected(&bench->workers[0]);
    take(bench, 0);
    assert_true(bench->stages.ready);
}

/* Worker k is told that it is not wanted. */
static void expect_dismissal(struct bench *bench, int k, enum status status, const char *word)
{
    struct message message = fake_worker_hear(&bench->workers[k], MESSAGE_FAILURE);
    assert_int_equal(message.failure->type, MESSAGE_HELLO);
    assert_int_equal(message.failure->status, status);
    if (!strstr(message.failure->text, word))
        fail_msg("'%s' has no '%s'", message.failure->text, word);
    message_clear(&message);
    assert_false(bench->stages.failed);
    assert_int_equal(stages_n_missing(&bench->stages), 1);
}

/* Stage 1 is far away: its own address is where it listens, unless it says another. */
static void test_a_remote_stage_behind_a_local_one(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench, "01");
    advance(&bench);
    assert_int_equal(stages_n_remote(&bench.stages), 1);
    assert_int_equal(stages_n_missing(&bench.stages), 1);
    assert_false(stages_want_worker(&bench.stages, 0, bench.now_ms));
    join(&bench, 0, NULL, "");
    say_loaded(&bench, 0, "");
    bench.now_ms += 3600 * 1000; /* nobody comes for an hour */
    bench.stages.list[0].worker.heard_ms = bench.now_ms;
    advance(&bench);
    assert_false(bench.stages.failed);
    join(&bench, 1, "10.0.0.2", "tcp://10.0.0.2:*");
    say_loaded(&bench, 1, "tcp://[::ffff:10.0.0.2]:4000");
    connect_hop(&bench, "tcp://10.0.0.2:4000");
    assert_int_equal(worker_pid(&bench.stages.list[1].worker), 77);
    /* It is lost: its place is free at once, and the other keeps its weights. */
    stages_lose(&bench.stages, 1, bench.now_ms, "the test");
    expect_dismissal(&bench, 1, STATUS_LOST, "the test");
    assert_non_null(
        strstr(bench.stages.reason.text, "(pid 77 on far, 10.0.0.2) is lost: the test"));
    assert_true(stages_want_worker(&bench.stages, 1, bench.now_ms));
    advance(&bench);
    fake_worker_expect(&bench.workers[0], MESSAGE_RESET);
    fake_worker_ready(&bench.workers[0], 2);
    take(&bench, 0);
    join(&bench, 1, "fe80::3", "tcp://[fe80::3]:*");
    say_loaded(&bench, 1, "tcp://0.0.0.0:5000"); /* all its addresses: the one it came from */
    connect_hop(&bench, "tcp://[fe80::3]:5000");
    assert_int_equal(bench.stages.list[1].worker.n_restarts, 1);
    tear_down(&bench);
}

/* Stage 1 is here and listens where another machine reaches it. */
static void test_a_local_stage_behind_a_remote_one(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench, "10");
    advance(&bench);
    join(&bench, 1, NULL, "tcp://10.0.0.1:*");
    join(&bench, 0, "10.0.0.2", "");
    say_loaded(&bench, 1, "tcp://10.0.0.1:4000");
    say_loaded(&bench, 0, "");
    expect_connect(&bench, "tcp://10.0.0.1:4000");
    /* A firewall: both stay, and try again after a pause. */
    fake_worker_fail(&bench.workers[0], MESSAGE_CONNECT, STATUS_TIMEOUT, 0, 0);
    take(&bench, 0);
    assert_false(bench.stages.failed);
    assert_non_null(strstr(bench.stages.notice.text, "is that port open between the machines?"));
    assert_int_equal(stages_n_missing(&bench.stages), 0);
    fake_worker_expect_silence(&bench.workers[0]);
    bench.now_ms += WORKER_CONNECT_PAUSE_MS;
    for (int k = 0; k < N; k++)
        bench.stages.list[k].worker.heard_ms = bench.now_ms;
    advance(&bench);
    connect_hop(&bench, "tcp://10.0.0.1:4000");
    assert_int_equal(bench.stages.notice.code, STATUS_OK);
    tear_down(&bench);
}

static void test_who_does_not_fit_is_sent_away_alone(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench, "01");
    advance(&bench);
    join(&bench, 0, NULL, "");
    /* Another checkpoint. */
    join(&bench, 1, "10.0.0.2", NULL);
    struct stage other = bench.stages.list[1];
    other.last_unit--;
    fake_worker_loaded(&bench.workers[1], &other, 1, "tcp://10.0.0.2:4000");
    take(&bench, 1);
    expect_dismissal(&bench, 1, STATUS_INVALID, "another checkpoint than mgptd");
    assert_non_null(strstr(bench.stages.notice.text, "from 10.0.0.2, was refused: stage 0.1 has"));
    /* It cannot load. */
    join(&bench, 1, "10.0.0.2", NULL);
    fake_worker_fail(&bench.workers[1], MESSAGE_LOAD, STATUS_NOMEM, 0, 0);
    take(&bench, 1);
    expect_dismissal(&bench, 1, STATUS_NOMEM, "stage 0.1: as the test wants it");
    /* Another kind of device, and it was there first: it goes all the same. */
    join(&bench, 1, "10.0.0.2", NULL);
    fake_worker_loaded_with(&bench.workers[1], &bench.stages.list[1], 1, "tcp://10.0.0.2:4000",
                            "device=cuda path=sm_90");
    take(&bench, 1);
    fake_worker_loaded_with(&bench.workers[0], &bench.stages.list[0], 1, "", "device=cpu path=amx");
    take(&bench, 0);
    expect_dismissal(&bench, 1, STATUS_INVALID, "round differently");
    assert_true(bench.stages.list[0].loaded);
    assert_true(stages_want_worker(&bench.stages, 1, bench.now_ms)); /* no pause for the next one */
    tear_down(&bench);
}

static void test_addresses_that_reach_nobody(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench, "11");
    greet(&bench, 0, "10.0.0.2");
    greet(&bench, 1, "10.0.0.3");
    expect_bind(&bench, 0, NULL);
    expect_bind(&bench, 1, NULL);
    say_loaded(&bench, 0, "");
    say_loaded(&bench, 1, "tcp://127.0.0.1:4000");
    expect_dismissal(&bench, 1, STATUS_INVALID,
                     "stage 0.1 at 10.0.0.3 takes activations at tcp://127.0.0.1:4000, which stage "
                     "0.0 at 10.0.0.2 cannot reach: give its mgpt-worker --link tcp://ADDRESS:*");
    /* Of the same machine it may be loopback. */
    advance(&bench);
    fake_worker_expect(&bench.workers[0], MESSAGE_RESET);
    fake_worker_ready(&bench.workers[0], bench.stages.epoch);
    take(&bench, 0);
    join(&bench, 1, "10.0.0.2", NULL);
    say_loaded(&bench, 1, "tcp://127.0.0.1:4000");
    expect_connect(&bench, "tcp://127.0.0.1:4000");
    tear_down(&bench);
}

/* While others are waited for, a stage of our own that was loaded once is started again. */
static void test_a_local_loss_while_waiting(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench, "01");
    advance(&bench);
    join(&bench, 0, NULL, "");
    say_loaded(&bench, 0, "");
    stages_lose(&bench.stages, 0, bench.now_ms, "the test");
    assert_false(bench.stages.failed);
    advance(&bench);
    assert_true(bench.stages.list[0].worker.process.pid > 0);
    tear_down(&bench);
    set_up(&bench, "01"); /* one that never was is the end, as ever */
    advance(&bench);
    join(&bench, 0, NULL, "");
    fake_worker_fail(&bench.workers[0], MESSAGE_LOAD, STATUS_NOMEM, 0, 0);
    take(&bench, 0);
    assert_true(bench.stages.failed);
    tear_down(&bench);
}

/* A stranger with the process id of one of our own workers is not taken for it. */
static void test_local_workers_do_not_come_by_the_door(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench, "01");
    advance(&bench);
    struct worker *worker = &bench.stages.list[0].worker;
    struct frame_peer peer = {.socket = &bench, .n_bytes = 1, .bytes = "x"};
    Mgpt__Hello hello = MGPT__HELLO__INIT;
    hello.role = MGPT__ROLE__ROLE_STAGE;
    hello.pid = (uint64_t)worker->process.pid;
    assert_false(worker_greet(worker, &peer, &hello, bench.now_ms));
    peer.socket = bench.crew.crew.router;
    assert_true(worker_greet(worker, &peer, &hello, bench.now_ms));
    tear_down(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_remote_stage_behind_a_local_one),
        cmocka_unit_test(test_a_local_stage_behind_a_remote_one),
        cmocka_unit_test(test_who_does_not_fit_is_sent_away_alone),
        cmocka_unit_test(test_addresses_that_reach_nobody),
        cmocka_unit_test(test_a_local_loss_while_waiting),
        cmocka_unit_test(test_local_workers_do_not_come_by_the_door),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
