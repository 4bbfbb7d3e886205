/*
 * codebook_test.c - goal: the nearest entry is the one that all distances in f64 name, the first
 * among equal ones, for codebooks that fill no panel and numbers of vectors that fill no block;
 * lookup gives entries back bit for bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/codebook.h"
#include "kernels/stream.h"

static float *floats(size_t n, uint32_t seed)
{
    float *x = malloc(sizeof(*x) * n);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
    return x;
}

static void nearest(int32_t *codes, const float *z, const float *entries, int n, int n_codes,
                    int n_dims, enum code_path path, int n_threads)
{
    struct stream *stream;
    struct codebook *codebook;
    const struct stream_options options = {.n_threads = n_threads};
    assert_int_equal(stream_create_on_path(&stream, &options, path, NULL), STATUS_OK);
    assert_int_equal(codebook_create(&codebook, entries, n_codes, n_dims, stream, NULL), STATUS_OK);
    assert_int_equal(codebook_nearest(codes, z, codebook, n, stream), STATUS_OK);
    codebook_destroy(codebook);
    stream_destroy(stream);
}

/* Random vectors have no second entry within rounding, so equality is asked for; the seed is fixed.
 */
static void test_agrees_with_twin(void **state)
{
    (void)state;
    static const struct {
        int n, n_codes, n_dims;
    } cases[] = {{1, 1, 1}, {5, 31, 3}, {97, 33, 32}, {49, 1000, 20}, {130, 64, 256}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int n = cases[i].n, n_codes = cases[i].n_codes, n_dims = cases[i].n_dims;
        float *z = floats((size_t)n * n_dims, 11), *entries = floats((size_t)n_codes * n_dims, 12);
        int32_t want[256], got[256];
        codebook_nearest_ref(want, z, entries, n, n_codes, n_dims);
        for (int path = 0; path < CODE_PATH_COUNT; path++)
            for (int n_threads = 1; n_threads <= 3 && code_path_available(path); n_threads++) {
                nearest(got, z, entries, n, n_codes, n_dims, path, n_threads);
                assert_memory_equal(got, want, sizeof(int32_t) * n);
            }
        free(z);
        free(entries);
    }
}

static void test_first_of_equal_entries(void **state)
{
    (void)state;
    float entries[70 * 2], z[] = {3, 4, -1, 0.5f, NAN, 0};
    int32_t codes[3];
    for (int i = 0; i < 70; i++) {
        entries[2 * i] = i % 2 ? 3 : -1;
        entries[2 * i + 1] = i % 2 ? 4 : 0.5f;
    }
    nearest(codes, z, entries, 3, 70, 2, CODE_PATH_PORTABLE, 1);
    assert_int_equal(codes[0], 1);
    assert_int_equal(codes[1], 0);
    assert_int_equal(codes[2], 0); /* not a number */
}

static void test_lookup_gives_entries_back(void **state)
{
    (void)state;
    struct stream *stream;
    struct codebook *codebook;
    const struct stream_options options = {.n_threads = 1};
    const int32_t codes[] = {69, 0, 32};
    float *entries = floats(70 * 5, 13), z[15];
    assert_int_equal(stream_create(&stream, &options, NULL), STATUS_OK);
    assert_int_equal(codebook_create(&codebook, entries, 0, 5, stream, NULL), STATUS_INVALID);
    assert_null(codebook);
    assert_int_equal(codebook_create(&codebook, entries, 70, 5, stream, NULL), STATUS_OK);
    assert_int_equal(codebook_lookup(z, codes, codebook, 3, stream), STATUS_OK);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(z + 5 * i, entries + 5 * codes[i], sizeof(float) * 5);
    codebook_destroy(codebook);
    codebook_destroy(NULL);
    stream_destroy(stream);
    free(entries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_twin),
        cmocka_unit_test(test_first_of_equal_entries),
        cmocka_unit_test(test_lookup_gives_entries_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
