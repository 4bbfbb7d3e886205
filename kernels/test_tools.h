/*
 * test_tools.h - what the kernel tests share: numbers from fixed seeds, every code path of the
 * machine, comparisons.
 */
#ifndef MGPT_KERNELS_TEST_TOOLS_H
#define MGPT_KERNELS_TEST_TOOLS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/stream.h"

/* SplitMix64 (Steele, Lea, Flood 2014). */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* In (-1, 1). */
static inline float test_number(uint64_t *state)
{
    return (float)((double)(int64_t)test_random(state) * 0x1p-63);
}

/* n numbers in (-scale, scale), rounded to bf16 so that both compute types see the same. */
static inline float *test_numbers(size_t n, float scale, uint64_t seed)
{
    float *x = malloc((n ? n : 1) * sizeof(*x));
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = bf16_to_f32(bf16_from_f32(scale * test_number(&seed)));
    return x;
}

/* A copy as `dtype`, or back as f32. */
static inline void *test_as(enum dtype dtype, const float *x, size_t n)
{
    void *y = malloc((n ? n : 1) * dtype_bytes(dtype));
    assert_non_null(y);
    dtype_convert(y, dtype, x, DTYPE_F32, n);
    return y;
}

static inline float *test_as_f32(enum dtype dtype, const void *x, size_t n)
{
    float *y = malloc((n ? n : 1) * sizeof(*y));
    assert_non_null(y);
    dtype_convert(y, DTYPE_F32, x, dtype, n);
    return y;
}

/* Memory for results: what a kernel leaves out is seen, even where the last test's answer lay. */
static inline void *test_garbage(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    assert_non_null(memory);
    return memset(memory, 0x7f, bytes);
}

/* Largest |a - b| over n numbers; NaN counts as infinite. */
static inline double test_largest_error(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)a[i] - (double)b[i]);
        largest = error <= largest ? largest : isnan(error) ? INFINITY : error;
    }
    return largest;
}

static inline struct stream *test_stream(enum code_path path, int n_threads)
{
    struct stream *stream;
    struct error err;
    struct stream_options options = {.n_threads = n_threads};
    if (stream_create_on_path(&stream, &options, path, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return stream;
}

/* Runs `body` on every path that this machine has, and says which it has not. */
static inline void test_each_path(void (*body)(enum code_path path))
{
    for (int path = 0; path < CODE_PATH_COUNT; path++) {
        if (code_path_available((enum code_path)path))
            body((enum code_path)path);
        else
            printf("skipped: no %s on this machine\n", code_path_name((enum code_path)path));
    }
}

#endif
