/*
 * Goal: a connection is ended when its request is late, and only then; never while it is answered.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/http_watch.h"

enum { LIMIT_MS = 1000, WAIT_MS = 60000 }; /* WAIT_MS: only a failure meets it */

/* A connection whose other end the test holds. */
struct client {
    int fd, server_fd;
    struct http_watched *watched;
};

static void open_client(struct client *client, struct http_watch *watch, int64_t now_ms)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    client->fd = pair[0];
    client->server_fd = pair[1];
    client->watched = http_watch_begin(watch, pair[1], now_ms);
    assert_non_null(client->watched);
}

static void close_client(struct client *client, struct http_watch *watch)
{
    http_watch_end(watch, client->watched);
    close(client->fd);
    close(client->server_fd);
}

static int has_ended(const struct client *client, int wait_ms)
{
    struct pollfd item = {.fd = client->fd, .events = POLLRDHUP};
    return poll(&item, 1, wait_ms) > 0;
}

static void test_late_requests(void **state)
{
    (void)state;
    struct http_watch *watch;
    struct client early, late, answered;
    assert_int_equal(http_watch_create(&watch, LIMIT_MS, NULL), STATUS_OK);
    open_client(&late, watch, 0);
    open_client(&early, watch, 1);
    open_client(&answered, watch, 0);
    http_watch_answering(watch, answered.watched);
    assert_int_equal(http_watch_look(watch, LIMIT_MS), 0);
    assert_int_equal(http_watch_look(watch, LIMIT_MS + 1), 1);
    assert_true(has_ended(&late, 0));
    assert_false(has_ended(&early, 0));
    assert_false(has_ended(&answered, 0));
    assert_int_equal(http_watch_look(watch, LIMIT_MS + 1), 0); /* once */
    http_watch_waiting(watch, early.watched, 5 * LIMIT_MS);    /* its reply went out */
    assert_int_equal(http_watch_look(watch, 6 * LIMIT_MS), 0);
    http_watch_waiting(watch, answered.watched, 6 * LIMIT_MS);
    assert_int_equal(http_watch_look(watch, 7 * LIMIT_MS), 1);
    assert_true(has_ended(&early, 0));
    close_client(&early, watch); /* out of the middle, the front and the end of the list */
    close_client(&answered, watch);
    close_client(&late, watch);
    assert_int_equal(http_watch_look(watch, 100 * LIMIT_MS), 0);
    http_watch_destroy(watch);
}

static void test_the_thread_looks(void **state)
{
    (void)state;
    struct http_watch *watch;
    struct client late, answered;
    int64_t now_ms = clock_monotonic_ms();
    assert_int_equal(http_watch_create(&watch, LIMIT_MS, NULL), STATUS_OK);
    open_client(&late, watch, now_ms - 2 * LIMIT_MS);
    open_client(&answered, watch, now_ms - 2 * LIMIT_MS);
    http_watch_answering(watch, answered.watched);
    assert_int_equal(http_watch_start(watch, NULL), STATUS_OK);
    assert_true(has_ended(&late, WAIT_MS));
    assert_false(has_ended(&answered, 0));
    close_client(&late, watch);
    close_client(&answered, watch);
    http_watch_destroy(watch);
    http_watch_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_late_requests),
                                       cmocka_unit_test(test_the_thread_looks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
