/*
 * group_norm_test.c - goal: scale and shift agree with two passes in f64, also where the mean is a
 * thousand deviations away from zero; threads change no bit; a wrong eps or group is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/group_norm.h"
#include "kernels/stream.h"

enum { CHANNELS_MAX = 128 };

/* Squares are summed in f32 over runs of 64 pixels: an error of a few 2^-24; measured at most 3e-7.
 */
static const double TOLERANCE = 2e-6;

struct result {
    float scale[CHANNELS_MAX], shift[CHANNELS_MAX];
};

struct picture {
    float *x, weight[CHANNELS_MAX], bias[CHANNELS_MAX];
    int n_pixels, n_channels, n_groups;
    float offset; /* mean of all pixels */
};

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / (1 << 23) - 1.0f;
}

static void picture_init(struct picture *p, int n_pixels, int n_channels, int n_groups,
                         float offset)
{
    uint32_t seed = 7;
    *p = (struct picture){
        .n_pixels = n_pixels, .n_channels = n_channels, .n_groups = n_groups, .offset = offset};
    p->x = malloc(sizeof(float) * n_pixels * n_channels);
    assert_non_null(p->x);
    for (int i = 0; i < n_pixels * n_channels; i++)
        p->x[i] = noise(&seed) * (1 + i % n_channels) + offset;
    for (int c = 0; c < n_channels; c++) {
        p->weight[c] = noise(&seed) + 2.0f;
        p->bias[c] = noise(&seed);
    }
}

static struct result run(const struct picture *p, enum code_path path, int n_threads, float eps)
{
    struct stream *stream;
    struct result result;
    const struct stream_options options = {.n_threads = n_threads};
    assert_int_equal(stream_create_on_path(&stream, &options, path, NULL), STATUS_OK);
    void *workspace = malloc(group_norm_workspace_bytes(p->n_channels));
    assert_non_null(workspace);
    assert_int_equal(group_norm(result.scale, result.shift, p->x, p->weight, p->bias, p->n_pixels,
                                p->n_channels, p->n_groups, eps, workspace, stream),
                     STATUS_OK);
    free(workspace);
    stream_destroy(stream);
    return result;
}

/* Largest difference of a normalised value of size one deviation, as the picture's values meet
 * scale and shift. */
static double error_of(const struct picture *p, const struct result *got, float eps)
{
    struct result want;
    double worst = 0;
    group_norm_ref(want.scale, want.shift, p->x, p->weight, p->bias, p->n_pixels, p->n_channels,
                   p->n_groups, eps);
    for (int c = 0; c < p->n_channels; c++) {
        double scale = fabs(got->scale[c] / want.scale[c] - 1);
        double shift =
            fabs(got->shift[c] - want.shift[c]) / (1 + fabs(want.scale[c] * (double)p->offset));
        worst = fmax(worst, fmax(scale, shift));
    }
    return worst;
}

static void test_agrees_with_twin(void **state)
{
    (void)state;
    static const struct {
        int n_pixels, n_channels, n_groups;
        float offset;
    } cases[] = {{1, 64, 32, 0},
                 {63, 32, 32, 1},
                 {257, 96, 32, -3},
                 {20001, 64, 32, 5},
                 {4099, 128, 32, 60000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct picture p;
        picture_init(&p, cases[i].n_pixels, cases[i].n_channels, cases[i].n_groups,
                     cases[i].offset);
        for (int path = 0; path < CODE_PATH_COUNT; path++) {
            if (!code_path_available(path))
                continue;
            struct result result = run(&p, path, 2, 1e-6f);
            double error = error_of(&p, &result, 1e-6f);
            print_message("case %zu path %s error %.2g\n", i, code_path_name(path), error);
            assert_true(error <= TOLERANCE);
        }
        free(p.x);
    }
}

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    struct picture p;
    picture_init(&p, 5003, 64, 32, 1);
    struct result one = run(&p, CODE_PATH_PORTABLE, 1, 1e-6f);
    for (int path = 0; path < CODE_PATH_COUNT; path++)
        for (int n_threads = 1; n_threads <= 4 && code_path_available(path); n_threads++) {
            struct result other = run(&p, path, n_threads, 1e-6f);
            assert_memory_equal(one.scale, other.scale, sizeof(float) * 64);
            assert_memory_equal(one.shift, other.shift, sizeof(float) * 64);
        }
    free(p.x);
}

static void test_tolerance_sees_a_wrong_norm(void **state)
{
    (void)state;
    struct picture p;
    picture_init(&p, 300, 64, 32, 1);
    struct result result = run(&p, CODE_PATH_PORTABLE, 1, 1e-3f);
    assert_true(error_of(&p, &result, 1e-6f) > 10 * TOLERANCE);
    p.n_groups = 16;
    result = run(&p, CODE_PATH_PORTABLE, 1, 1e-6f);
    p.n_groups = 32;
    assert_true(error_of(&p, &result, 1e-6f) > 10 * TOLERANCE);
    free(p.x);
}

static void test_refuses_uneven_groups(void **state)
{
    (void)state;
    struct stream *stream;
    float x[48] = {0};
    const struct stream_options options = {.n_threads = 1};
    assert_int_equal(stream_create(&stream, &options, NULL), STATUS_OK);
    assert_int_equal(group_norm(x, x, x, x, x, 1, 48, 32, 1e-6f, x, stream), STATUS_INVALID);
    assert_int_equal(group_norm(x, x, x, x, x, 1, 40, 4, 1e-6f, x, stream), STATUS_INVALID);
    assert_int_equal(group_norm(x, x, x, x, x, 0, 32, 32, 1e-6f, x, stream), STATUS_INVALID);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_twin),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_tolerance_sees_a_wrong_norm),
        cmocka_unit_test(test_refuses_uneven_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
