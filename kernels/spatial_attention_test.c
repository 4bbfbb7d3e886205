/*
 * spatial_attention_test.c - goal: blocks of keys and a running maximum give what all scores at
 * once give, for pixel counts around the block, for flat and for sharp softmax; threads change no
 * bit; a missing scale or key is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/spatial_attention.h"
#include "kernels/stream.h"

/* Scores up to 50 carry an error of 50 * 2^-24 into exp, on top of the chains; measured at most
 * 3e-6. */
static const float TOLERANCE = 1e-5f;

struct fixture {
    int n, c;
    float *q, *k, *v, *out, *expected, *scores;
};

static float *floats(size_t n, uint32_t seed, float scale)
{
    float *x = malloc(sizeof(*x) * n);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = ((float)(seed >> 8) / (1 << 23) - 1.0f) * scale;
    }
    return x;
}

static void fixture_init(struct fixture *f, int n, int c, float sharpness)
{
    size_t size = (size_t)n * c;
    *f = (struct fixture){n,
                          c,
                          floats(size, 1, sharpness),
                          floats(size, 2, 1.0f),
                          floats(size, 3, 1.0f),
                          floats(size, 4, 1.0f),
                          floats(size, 5, 1.0f),
                          floats(n, 6, 1.0f)};
    spatial_attention_ref(f->expected, f->q, f->k, f->v, n, c, f->scores);
}

static void fixture_fini(struct fixture *f)
{
    float *all[] = {f->q, f->k, f->v, f->out, f->expected, f->scores};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

static void run(struct fixture *f, float *out, const float *q, enum code_path path, int n_threads)
{
    struct stream *stream;
    const struct stream_options options = {.n_threads = n_threads};
    assert_int_equal(stream_create_on_path(&stream, &options, path, NULL), STATUS_OK);
    void *workspace = malloc(spatial_attention_workspace_bytes(f->n, f->c));
    assert_non_null(workspace);
    assert_int_equal(spatial_attention(out, q, f->k, f->v, f->n, f->c, workspace, stream),
                     STATUS_OK);
    free(workspace);
    stream_destroy(stream);
}

static float error_of(const struct fixture *f)
{
    float worst = 0.0f;
    for (size_t i = 0; i < (size_t)f->n * f->c; i++) {
        float e = fabsf(f->out[i] - f->expected[i]);
        if (!(e <= worst))
            worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}

static void test_agrees_with_twin(void **state)
{
    (void)state;
    static const struct {
        int n, c;
        float sharpness;
    } cases[] = {{1, 16, 1}, {37, 48, 1}, {255, 32, 20}, {256, 32, 1}, {257, 64, 20}, {700, 80, 5}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        fixture_init(&f, cases[i].n, cases[i].c, cases[i].sharpness);
        for (int path = 0; path < CODE_PATH_COUNT; path++) {
            if (!code_path_available(path))
                continue;
            run(&f, f.out, f.q, path, 2);
            float error = error_of(&f);
            print_message("case %zu path %s error %.2g\n", i, code_path_name(path), error);
            assert_true(error <= TOLERANCE);
        }
        fixture_fini(&f);
    }
}

static void test_threads_and_place_change_no_bit(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 301, 32, 5);
    for (int path = 0; path < CODE_PATH_COUNT; path++) {
        if (!code_path_available(path))
            continue;
        run(&f, f.expected, f.q, path, 1);
        for (int n_threads = 2; n_threads <= 4; n_threads++) {
            memcpy(f.out, f.q, sizeof(float) * f.n * f.c);
            run(&f, f.out, f.out, path, n_threads);
            assert_memory_equal(f.out, f.expected, sizeof(float) * f.n * f.c);
        }
    }
    fixture_fini(&f);
}

static void test_tolerance_sees_a_wrong_kernel(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 300, 32, 3);
    for (int i = 0; i < f.n * f.c; i++)
        f.q[i] *= 1.001f; /* as a scale that is off by a thousandth */
    run(&f, f.out, f.q, CODE_PATH_PORTABLE, 1);
    assert_true(error_of(&f) > 5 * TOLERANCE);
    spatial_attention_ref(f.expected, f.q, f.k, f.v, f.n - 1, f.c,
                          f.scores); /* one key is missing */
    assert_true(error_of(&f) > 5 * TOLERANCE);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_twin),
        cmocka_unit_test(test_threads_and_place_change_no_bit),
        cmocka_unit_test(test_tolerance_sees_a_wrong_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
