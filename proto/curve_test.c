/*
 * curve_test.c - key files, who counts as local, and that a wrong key does not get through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/curve.h"
#include "proto/frame.h"

static struct error err;
static char path[] = "/tmp/curve_test.XXXXXX";

static void write_file(const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void expect_bad_file(const char *text, const char *expected)
{
    struct curve_keys keys;
    write_file(text, 0600);
    assert_int_equal(curve_load_file(&keys, NULL, path, &err), STATUS_INVALID);
    if (!strstr(err.text, expected))
        fail_msg("'%s' has no '%s'", err.text, expected);
    assert_int_equal(keys.secret_key[0], 0);
}

static void test_key_files(void **state)
{
    (void)state;
    struct curve_keys keys, made;
    static char text[CURVE_FILE_BYTES_MAX + 100];
    assert_int_equal(curve_generate(&made, &err), STATUS_OK);
    snprintf(text, sizeof(text), "# a worker\n\npublic %s\nsecret\t%s\r\n  server %s",
             made.public_key, made.secret_key, made.server_key);
    write_file(text, 0600);
    assert_int_equal(curve_load_file(&keys, NULL, path, &err), STATUS_OK);
    assert_memory_equal(&keys, &made, sizeof(keys));
    write_file(text, 0640);
    assert_int_equal(curve_load_file(&keys, NULL, path, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "chmod 600"));
    expect_bad_file("public x\n", "line 1: a key is 40 characters of Z85");
    expect_bad_file("\nprivate x\n", "line 2: unknown word");
    expect_bad_file("public\n", "line 1: expected a word and a key");
    expect_bad_file("public a b\n", "line 1: expected a word and a key");
    expect_bad_file(
        "public \"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\n",
        "Z85");
    snprintf(text, sizeof(text), "public %s\npublic %s\n", made.public_key, made.public_key);
    expect_bad_file(text, "line 2: 'public' occurs twice");
    snprintf(text, sizeof(text), "public %s\n", made.public_key);
    expect_bad_file(text, "lacks one of");
    memset(text, '#', CURVE_FILE_BYTES_MAX);
    text[CURVE_FILE_BYTES_MAX] = '\0';
    expect_bad_file(text, "limit");
    unlink(path);
    assert_int_equal(curve_load_file(&keys, NULL, path, &err), STATUS_NOT_FOUND);
    assert_int_equal(curve_load_file(&keys, NULL, "/tmp", &err), STATUS_INVALID);
}

/* The controller's file says who is let in; a worker's has no such lines. */
static void test_lists_of_workers(void **state)
{
    (void)state;
    struct curve_keys keys, server, a, b;
    static struct curve_list list;
    uint8_t bytes[CURVE_KEY_BYTES];
    char text[1000];
    assert_int_equal(curve_generate(&server, &err), STATUS_OK);
    assert_int_equal(curve_generate(&a, &err), STATUS_OK);
    assert_int_equal(curve_generate(&b, &err), STATUS_OK);
    snprintf(text, sizeof(text), "public %s\nsecret %s\nserver %s\nworker %s\nworker %s\n",
             server.public_key, server.secret_key, server.server_key, a.public_key, a.public_key);
    write_file(text, 0600);
    assert_int_equal(curve_load_file(&keys, &list, path, &err), STATUS_OK);
    assert_int_equal(list.n, 2);
    assert_non_null(zmq_z85_decode(bytes, a.public_key));
    assert_true(curve_list_has(&list, bytes));
    assert_non_null(zmq_z85_decode(bytes, b.public_key));
    assert_false(curve_list_has(&list, bytes));
    expect_bad_file(text, "line 4: unknown word, expected public, secret or server");
    write_file("worker x\n", 0600);
    assert_int_equal(curve_load_file(&keys, &list, path, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "line 1: a key is 40 characters of Z85"));
    FILE *file = fopen(path, "w");
    for (int i = 0; i <= CURVE_LIST_MAX; i++)
        fprintf(file, "worker %s\n", a.public_key);
    fclose(file);
    assert_int_equal(curve_load_file(&keys, &list, path, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "more than 512 workers"));
    unlink(path);
}

static void test_local_endpoints(void **state)
{
    (void)state;
    static const char *const local[] = {"ipc:///tmp/x",      "inproc://x",
                                        "tcp://127.0.0.1:1", "tcp://127.9.9.9:*",
                                        "tcp://localhost:1", "tcp://[::1]:1"};
    static const char *const remote[] = {"tcp://10.0.0.1:1",
                                         "tcp://*:1",
                                         "tcp://0.0.0.0:1",
                                         "tcp://127.evil.org:1",
                                         "tcp://localhost.evil.org:1",
                                         "tcp://127.0.0.1.evil.org:1",
                                         "",
                                         "tcp://127.0.0.1:0;10.0.0.5:1",
                                         "pgm://127.0.0.1:1"};
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
        assert_true(curve_endpoint_is_local(local[i]));
    for (size_t i = 0; i < sizeof(remote) / sizeof(remote[0]); i++)
        assert_false(curve_endpoint_is_local(remote[i]));
}

/* Sends one frame from a client that takes `server_key` for the server's. */
static enum status try_key(const struct curve_keys *server, const char *server_key)
{
    struct curve_keys client;
    struct frame frame;
    struct frame_peer peer;
    zmq_msg_t payload;
    char endpoint[128];
    size_t n = sizeof(endpoint);
    void *zmq = zmq_ctx_new(), *router = zmq_socket(zmq, ZMQ_ROUTER),
         *dealer = zmq_socket(zmq, ZMQ_DEALER);
    assert_int_equal(curve_generate(&client, &err), STATUS_OK);
    frame_configure_socket(router, &err);
    frame_configure_socket(dealer, &err);
    assert_int_equal(curve_set_server(router, server, &err), STATUS_OK);
    assert_int_equal(curve_set_client(dealer, &client, server_key, &err), STATUS_OK);
    assert_int_equal(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &n), 0);
    assert_int_equal(zmq_connect(dealer, endpoint), 0);
    zmq_msg_init(&payload);
    frame_send(dealer, NULL, 1, &payload, 0, &err);
    enum status st =
        frame_receive(router, &peer, &frame, server_key == server->public_key ? 5000 : 300, &err);
    frame_clear(&frame);
    int no_linger = 0;
    zmq_setsockopt(dealer, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    zmq_close(dealer);
    zmq_close(router);
    zmq_ctx_term(zmq);
    return st;
}

static void test_keys_on_the_wire(void **state)
{
    (void)state;
    struct curve_keys server, other;
    assert_int_equal(curve_generate(&server, &err), STATUS_OK);
    assert_int_equal(curve_generate(&other, &err), STATUS_OK);
    assert_int_equal(try_key(&server, server.public_key), STATUS_OK);
    assert_int_equal(try_key(&server, other.public_key), STATUS_TIMEOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_lists_of_workers),
        cmocka_unit_test(test_local_endpoints),
        cmocka_unit_test(test_keys_on_the_wire),
    };
    int file = mkstemp(path);
    if (file >= 0)
        close(file);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
