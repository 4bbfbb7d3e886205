/*
 * endpoint_test.c - hosts out of what users and sockets write, and whom they reach.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/endpoint.h"

static void test_hosts(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"tcp://10.0.0.1:9300", "10.0.0.1", "9300"},
                                           {"10.0.0.1:9300", "10.0.0.1", "9300"},
                                           {"tcp://*:*", "*", "*"},
                                           {"tcp://[::1]:7", "::1", "7"},
                                           {"[fe80::1]:7", "fe80::1", "7"},
                                           {"tcp://[::ffff:127.0.0.2]:7", "127.0.0.2", "7"},
                                           {"tcp://[::ffff:0]:7", "::ffff:0", "7"},
                                           {"gpu-host:1", "gpu-host", "1"}};
    static const char *const wrong[] = {
        "",         "9300",       ":9300",  "ipc:///tmp/x", "tcp://",
        "tcp://:1", "tcp://[]:1", "[::1:7", "tcp://a:0;b:1"};
    char host[ENDPOINT_HOST_BYTES], whole[ENDPOINT_BYTES], again[ENDPOINT_HOST_BYTES];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(endpoint_host(host, cases[i][0]));
        assert_string_equal(host, cases[i][1]);
        assert_string_equal(endpoint_port(cases[i][0]), cases[i][2]);
        endpoint_format(whole, host, cases[i][2]);
        assert_true(endpoint_host(again, whole));
        assert_string_equal(again, host);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(endpoint_host(host, wrong[i]));
        assert_string_equal(host, "");
    }
    char longest[2 * ENDPOINT_HOST_BYTES];
    memset(longest, 'a', sizeof(longest));
    strcpy(longest + ENDPOINT_HOST_BYTES - 1, ":1");
    assert_true(endpoint_host(host, longest));
    endpoint_format(whole, host, "65535"); /* fits */
    assert_string_equal(endpoint_port(whole), "65535");
    memset(longest, 'a', sizeof(longest));
    strcpy(longest + ENDPOINT_HOST_BYTES, ":1");
    assert_false(endpoint_host(host, longest));
}

static void test_whom_they_reach(void **state)
{
    (void)state;
    static const char *const loopback[] = {"127.0.0.1", "127.9.9.9", "::1", "localhost"};
    static const char *const wildcard[] = {"*", "0.0.0.0", "::"};
    static const char *const other[] = {"10.0.0.1", "127.evil.org", "localhost.evil.org", "",
                                        "::2"};
    for (size_t i = 0; i < sizeof(loopback) / sizeof(loopback[0]); i++) {
        assert_true(endpoint_is_loopback(loopback[i]));
        assert_false(endpoint_is_wildcard(loopback[i]));
    }
    for (size_t i = 0; i < sizeof(wildcard) / sizeof(wildcard[0]); i++) {
        assert_false(endpoint_is_loopback(wildcard[i]));
        assert_true(endpoint_is_wildcard(wildcard[i]));
    }
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        assert_false(endpoint_is_loopback(other[i]));
        assert_false(endpoint_is_wildcard(other[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_whom_they_reach),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
