/*
 * http_key_test.c - goal: only a private file with one good line is a key, and only that key fits.
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

#include "daemon/http_key.h"

#define KEY "0123456789abcdef"

static enum status load(struct http_key *key, const char *text, size_t n, unsigned mode,
                        struct error *err)
{
    char path[] = "/tmp/http_key_test_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, n), n);
    assert_int_equal(fchmod(file, mode), 0);
    close(file);
    enum status st = http_key_load(key, path, err);
    unlink(path);
    return st;
}

static void expect_refusal(const char *text, size_t n, unsigned mode, const char *word)
{
    struct http_key key;
    struct error err;
    assert_int_equal(load(&key, text, n, mode, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, word));
    assert_non_null(strstr(err.text, "/tmp/http_key_test_"));
    assert_string_equal(key.text, "");
}

static void test_files(void **state)
{
    struct http_key key;
    struct error err;
    char longest[HTTP_KEY_CHARS_MAX + 2];
    (void)state;
    memset(longest, 'k', sizeof(longest));
    assert_int_equal(load(&key, KEY "\nanything", 25, 0600, &err), STATUS_OK);
    assert_string_equal(key.text, KEY);
    assert_int_equal(load(&key, longest, HTTP_KEY_CHARS_MAX, 0400, &err), STATUS_OK);
    expect_refusal(longest, HTTP_KEY_CHARS_MAX + 1, 0600, "16 to 256");
    expect_refusal(longest, HTTP_KEY_CHARS_MIN - 1, 0600, "16 to 256");
    expect_refusal("", 0, 0600, "16 to 256");
    expect_refusal("\n" KEY, 17, 0600, "16 to 256");
    expect_refusal("0123456789 abcdef", 17, 0600, "visible");
    expect_refusal("0123456789\0abcdef", 17, 0600, "16 to 256");
    expect_refusal("0123456789abcd\xc3\xa9", 16, 0600, "visible");
    expect_refusal(KEY, 16, 0640, "chmod 600");
    expect_refusal(KEY, 16, 0604, "mode 604");
    assert_int_equal(http_key_load(&key, "/nowhere/key", &err), STATUS_NOT_FOUND);
    assert_int_equal(http_key_load(&key, "/dev/null", &err), STATUS_INVALID);
    assert_int_equal(http_key_load(&key, "/", &err), STATUS_INVALID);
}

static void test_headers(void **state)
{
    struct http_key key = {KEY};
    (void)state;
    assert_true(http_key_fits(&key, "Bearer " KEY));
    assert_true(http_key_fits(&key, "bearer " KEY));
    static const char *const wrong[] = {NULL,
                                        "",
                                        "Bearer",
                                        "Bearer ",
                                        KEY,
                                        "Basic " KEY,
                                        "Bearer  " KEY,
                                        "Bearer " KEY "0",
                                        "Bearer " KEY " ",
                                        "Bearer 0123456789abcde",
                                        "Bearer 0123456789abcdeF"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(http_key_fits(&key, wrong[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
