/*
 * Goal: the store of pictures keeps within its limits and hands out only what was put in; base64
 * and histograms, which serve the same replies, are exact at their edges.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/base64.h"
#include "daemon/file_store.h"
#include "daemon/histogram.h"

static uint8_t *bytes_of(size_t n, uint8_t value)
{
    uint8_t *bytes = malloc(n);
    memset(bytes, value, n);
    return bytes;
}

static void put(struct file_store *store, size_t n, uint8_t value, int64_t now_s,
                char name[FILE_STORE_NAME_BYTES])
{
    assert_int_equal(file_store_put(store, bytes_of(n, value), n, "png", now_s, name, NULL),
                     STATUS_OK);
}

static bool has(struct file_store *store, const char *name, int64_t now_s)
{
    uint8_t *bytes;
    size_t n;
    if (file_store_get(store, name, now_s, &bytes, &n, NULL) != STATUS_OK)
        return false;
    free(bytes);
    return true;
}

static void test_put_and_get(void **state)
{
    struct file_store *store;
    char a[FILE_STORE_NAME_BYTES], b[FILE_STORE_NAME_BYTES];
    uint8_t *bytes;
    size_t n;
    (void)state;
    assert_int_equal(file_store_create(&store, NULL), STATUS_OK);
    put(store, 10, 1, 100, a);
    put(store, 20, 2, 100, b);
    assert_string_not_equal(a, b);
    assert_string_equal(strrchr(a, '.'), ".png");
    assert_int_equal(file_store_get(store, b, 100, &bytes, &n, NULL), STATUS_OK);
    assert_int_equal(n, 20);
    assert_int_equal(bytes[19], 2);
    free(bytes);
    assert_false(has(store, "nothing.png", 100));
    assert_false(has(store, "", 100));
    file_store_destroy(store);
    file_store_destroy(NULL);
}

static void test_age(void **state)
{
    struct file_store *store;
    char name[FILE_STORE_NAME_BYTES];
    (void)state;
    assert_int_equal(file_store_create(&store, NULL), STATUS_OK);
    put(store, 10, 1, 100, name);
    assert_true(has(store, name, 100 + FILE_STORE_AGE_S));
    assert_false(has(store, name, 101 + FILE_STORE_AGE_S));
    file_store_destroy(store);
}

static void test_limits(void **state)
{
    struct file_store *store;
    char first[FILE_STORE_NAME_BYTES], second[FILE_STORE_NAME_BYTES], last[FILE_STORE_NAME_BYTES];
    (void)state;
    assert_int_equal(file_store_create(&store, NULL), STATUS_OK);
    put(store, 1, 1, 100, first);
    put(store, 1, 1, 100, second);
    for (int i = 0; i < FILE_STORE_FILES_MAX - 2; i++)
        put(store, 1, 1, 100, last);
    assert_true(has(store, first, 100));
    put(store, 1, 1, 100, last);
    assert_false(has(store, first, 100));
    assert_true(has(store, second, 100));
    put(store, FILE_STORE_BYTES_MAX, 1, 100, last); /* fills the store: all others go */
    assert_false(has(store, second, 100));
    assert_true(has(store, last, 100));
    assert_int_equal(
        file_store_put(store, malloc(1), (size_t)FILE_STORE_BYTES_MAX + 1, "png", 100, first, NULL),
        STATUS_NOMEM);
    assert_true(has(store, last, 100));
    file_store_destroy(store);
}

static void test_base64(void **state)
{
    static const struct {
        const char *plain, *coded;
    } pairs[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}};
    size_t n;
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char *text = base64_encode((const uint8_t *)pairs[i].plain, strlen(pairs[i].plain));
        assert_string_equal(text, pairs[i].coded);
        uint8_t *bytes = base64_decode(text, strlen(text), &n);
        assert_non_null(bytes);
        assert_int_equal(n, strlen(pairs[i].plain));
        assert_memory_equal(bytes, pairs[i].plain, n);
        free(bytes);
        free(text);
    }
    assert_null(base64_decode("Zg=", 3, &n));
    assert_null(base64_decode("Z g==", 5, &n));
    assert_null(base64_decode("Zm9v!", 5, &n));
}

static void test_histogram(void **state)
{
    struct histogram histogram;
    int n;
    (void)state;
    histogram_init(&histogram, HISTOGRAM_TOKENS);
    const double *bounds = histogram_bounds(HISTOGRAM_TOKENS, &n);
    for (int i = 1; i < n; i++)
        assert_true(bounds[i] > bounds[i - 1]);
    histogram_add(&histogram, bounds[0]); /* a bound belongs to its bucket */
    histogram_add(&histogram, bounds[0] + 0.5);
    histogram_add(&histogram, bounds[n - 1] + 1); /* above all */
    assert_int_equal(histogram.counts[0], 1);
    assert_int_equal(histogram.counts[1], 1);
    assert_int_equal(histogram.counts[HISTOGRAM_BUCKETS_MAX], 1);
    assert_int_equal(histogram.n, 3);
    assert_true(histogram.sum == bounds[0] * 2 + 0.5 + bounds[n - 1] + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_and_get), cmocka_unit_test(test_age),
        cmocka_unit_test(test_limits),      cmocka_unit_test(test_base64),
        cmocka_unit_test(test_histogram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
