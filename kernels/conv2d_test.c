/*
 * conv2d_test.c - goal: every kind of convolution agrees with its plain twin on every code path of
 * this machine, on odd sizes, with and without norm, swish and residual; the number of threads
 * changes no bit; a wrong border, a wrong residual or a missing swish is seen by the same
 * tolerance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/conv2d.h"
#include "kernels/stream.h"

/*
 * Both sides round each of k products and sums of values of order one; the error of a chain grows
 * at most like k * 2^-24 * (sum of absolute products). Measured: below 3e-6 of that bound's sum for
 * k up to 4608.
 */
static const float TOLERANCE = 4e-6f;

/* Products of two bf16 parts each are off by up to 2^-16, 1.5e-5, of themselves, and their errors
 * have either sign. Measured: below 6e-6. */
static const float TOLERANCE_BF16X2 = 1.2e-5f;

static float tolerance_of(enum code_path path)
{
    return path == CODE_PATH_AMX ? TOLERANCE_BF16X2 : TOLERANCE;
}

struct test_case {
    struct conv2d_shape shape;
    int width, height;
    bool norm, swish, residual;
};

static const struct test_case cases[] = {
    {{3, 32, 3, CONV2D_SAME}, 17, 9, false, false, false},
    {{32, 3, 3, CONV2D_SAME}, 31, 5, true, true, false},
    {{32, 32, 3, CONV2D_SAME}, 13, 7, true, true, true},
    {{64, 48, 3, CONV2D_SAME}, 1, 1, true, true, false},
    {{32, 80, 1, CONV2D_SAME}, 7, 11, true, false, true},
    {{5, 7, 1, CONV2D_SAME}, 3, 2, false, false, true},
    {{96, 33, 3, CONV2D_SAME}, 50, 3, true, true, true},
    {{32, 64, 3, CONV2D_DOWN}, 26, 14, false, false, false},
    {{3, 5, 3, CONV2D_DOWN}, 2, 2, false, false, false},
    {{64, 32, 3, CONV2D_UP}, 9, 6, false, false, false},
    {{4, 3, 3, CONV2D_UP}, 1, 3, false, false, true},
    {{512, 32, 3, CONV2D_SAME}, 6, 6, true, true, false},
};

enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };

static float *random_floats(size_t n, uint32_t seed, float scale)
{
    float *x = malloc(sizeof(*x) * n);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = ((float)(seed >> 8) / (1 << 23) - 1.0f) * scale;
    }
    return x;
}

struct fixture {
    float *x, *weight, *bias, *scale, *shift, *residual, *expected, *y;
    struct conv2d_norm norm;
    size_t n_out; /* floats of y */
};

static void fixture_init(struct fixture *f, const struct test_case *c)
{
    const struct conv2d_shape *s = &c->shape;
    size_t n_in = (size_t)c->width * c->height * s->n_in;
    f->n_out = (size_t)conv2d_side(s->kind, c->width) * conv2d_side(s->kind, c->height) * s->n_out;
    f->x = random_floats(n_in, 1, 2.0f);
    f->weight = random_floats((size_t)s->n_out * s->n_in * s->kernel * s->kernel, 2, 0.3f);
    f->bias = random_floats(s->n_out, 3, 1.0f);
    f->scale = random_floats(s->n_in, 4, 1.5f);
    f->shift = random_floats(s->n_in, 5, 0.5f);
    f->residual = random_floats(f->n_out, 6, 1.0f);
    f->expected = malloc(sizeof(float) * f->n_out);
    f->y = malloc(sizeof(float) * f->n_out);
    assert_non_null(f->expected);
    assert_non_null(f->y);
    f->norm = (struct conv2d_norm){f->scale, f->shift, c->swish};
    conv2d_ref(f->expected, f->x, s, f->weight, f->bias, c->norm ? &f->norm : NULL,
               c->residual ? f->residual : NULL, c->width, c->height);
}

static void fixture_fini(struct fixture *f)
{
    float *all[] = {f->x, f->weight, f->bias, f->scale, f->shift, f->residual, f->expected, f->y};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

static void run(struct fixture *f, const struct test_case *c, enum code_path path, int n_threads)
{
    struct stream *stream;
    struct conv2d_weight *weight;
    const struct stream_options options = {.n_threads = n_threads};
    assert_int_equal(stream_create_on_path(&stream, &options, path, NULL), STATUS_OK);
    assert_int_equal(conv2d_weight_create(&weight, &c->shape, f->weight, f->bias, stream, NULL),
                     STATUS_OK);
    for (size_t i = 0; i < f->n_out; i++)
        f->y[i] = NAN;
    assert_int_equal(conv2d(f->y, f->x, weight, c->norm ? &f->norm : NULL,
                            c->residual ? f->residual : NULL, c->width, c->height, stream),
                     STATUS_OK);
    conv2d_weight_destroy(weight);
    stream_destroy(stream);
}

/* The largest difference, against the largest value a chain of this depth can take. NaN counts as
 * infinite. */
static float error_of(const struct fixture *f, const struct test_case *c)
{
    float bound = 0.6f * sqrtf((float)c->shape.n_in * c->shape.kernel * c->shape.kernel) + 1.0f;
    float worst = 0.0f;
    for (size_t i = 0; i < f->n_out; i++) {
        float e = fabsf(f->y[i] - f->expected[i]) / bound;
        if (!(e <= worst))
            worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}

static void test_agrees_with_twin_on_every_path(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        struct fixture f;
        fixture_init(&f, &cases[i]);
        for (int path = 0; path < CODE_PATH_COUNT; path++) {
            if (!code_path_available(path))
                continue;
            run(&f, &cases[i], path, 2);
            float error = error_of(&f, &cases[i]);
            print_message("case %d path %s error %.2g\n", i, code_path_name(path), error);
            assert_true(error <= tolerance_of(path));
        }
        fixture_fini(&f);
    }
}

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    static const struct test_case larger = {{64, 80, 3, CONV2D_SAME}, 61, 43, true, true, true};
    struct fixture f;
    fixture_init(&f, &larger);
    for (int path = 0; path < CODE_PATH_COUNT; path++) {
        if (!code_path_available(path))
            continue;
        run(&f, &larger, path, 1);
        memcpy(f.expected, f.y, sizeof(float) * f.n_out);
        for (int n_threads = 2; n_threads <= 5; n_threads++) {
            run(&f, &larger, path, n_threads);
            assert_memory_equal(f.y, f.expected, sizeof(float) * f.n_out);
        }
    }
    fixture_fini(&f);
}

static void test_residual_may_be_the_output(void **state)
{
    (void)state;
    const struct test_case *c = &cases[2];
    struct fixture f;
    struct stream *stream;
    struct conv2d_weight *weight;
    const struct stream_options options = {.n_threads = 2};
    fixture_init(&f, c);
    assert_int_equal(stream_create(&stream, &options, NULL), STATUS_OK);
    enum code_path path = stream_code_path(stream);
    assert_int_equal(conv2d_weight_create(&weight, &c->shape, f.weight, f.bias, stream, NULL),
                     STATUS_OK);
    memcpy(f.y, f.residual, sizeof(float) * f.n_out);
    assert_int_equal(conv2d(f.y, f.x, weight, &f.norm, f.y, c->width, c->height, stream),
                     STATUS_OK);
    assert_true(error_of(&f, c) <= tolerance_of(path));
    conv2d_weight_destroy(weight);
    stream_destroy(stream);
    fixture_fini(&f);
}

/* A tolerance that nothing can fail shows nothing: the twin with one change must lie outside it. */
static void test_tolerance_sees_a_wrong_kernel(void **state)
{
    (void)state;
    const struct test_case *c = &cases[2];
    struct fixture f;
    fixture_init(&f, c);
    run(&f, c, CODE_PATH_PORTABLE, 1);
    struct conv2d_norm no_swish = f.norm;
    no_swish.swish = false;
    conv2d_ref(f.expected, f.x, &c->shape, f.weight, f.bias, &no_swish, f.residual, c->width,
               c->height);
    assert_true(error_of(&f, c) > 100 * TOLERANCE_BF16X2);
    conv2d_ref(f.expected, f.x, &c->shape, f.weight, f.bias, &f.norm, NULL, c->width, c->height);
    assert_true(error_of(&f, c) > 100 * TOLERANCE_BF16X2);
    f.weight[40] += 1e-3f;
    conv2d_ref(f.expected, f.x, &c->shape, f.weight, f.bias, &f.norm, f.residual, c->width,
               c->height);
    assert_true(error_of(&f, c) > TOLERANCE_BF16X2);
    fixture_fini(&f);
}

static void test_refuses_what_is_not_offered(void **state)
{
    (void)state;
    struct stream *stream;
    struct conv2d_weight *weight;
    struct error err;
    const struct stream_options options = {.n_threads = 1};
    float floats[16 * 9] = {0};
    assert_int_equal(stream_create(&stream, &options, NULL), STATUS_OK);
    struct conv2d_shape shape = {1, 1, 5, CONV2D_SAME};
    assert_int_equal(conv2d_weight_create(&weight, &shape, floats, floats, stream, &err),
                     STATUS_INVALID);
    assert_null(weight);
    shape = (struct conv2d_shape){0, 1, 3, CONV2D_SAME};
    assert_int_equal(conv2d_weight_create(&weight, &shape, floats, floats, stream, &err),
                     STATUS_INVALID);
    shape = (struct conv2d_shape){1, 1, 3, CONV2D_DOWN};
    assert_int_equal(conv2d_weight_create(&weight, &shape, floats, floats, stream, &err),
                     STATUS_OK);
    assert_int_equal(conv2d(floats, floats + 9, weight, NULL, NULL, 3, 2, stream), STATUS_INVALID);
    struct conv2d_norm norm = {floats, floats, true};
    assert_int_equal(conv2d(floats, floats + 9, weight, &norm, NULL, 2, 2, stream), STATUS_INVALID);
    conv2d_weight_destroy(weight);
    conv2d_weight_destroy(NULL);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_twin_on_every_path),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_residual_may_be_the_output),
        cmocka_unit_test(test_tolerance_sees_a_wrong_kernel),
        cmocka_unit_test(test_refuses_what_is_not_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
