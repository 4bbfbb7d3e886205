/*
 * conv2d_bench.c - GFLOP/s of the convolutions of the published VQ-GAN, beside the machine's own
 * peak of f32 FMA.
 *
 * usage: conv2d_bench [THREADS]        [1]; MGPT_CPU_PATH picks the code path
 * Times are CPU times of all threads together, so a rate is that of one core and other programs
 * hardly change it. The best of several runs counts. The peak is the same kernel on a tile that
 * stays in the first cache; products of UP count as the nine of its definition, so its figure may
 * exceed the peak.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/conv2d.h"
#include "kernels/cpu/tile_f32.h"
#include "kernels/stream.h"

enum { REPEAT_MS = 300, PEAK_DEPTH = 64, PEAK_CALLS = 4000 };

static const struct {
    const char *name;
    struct conv2d_shape shape;
    int width, height;
    bool norm;
} cases[] = {
    {"512x512   3->128", {3, 128, 3, CONV2D_SAME}, 512, 512, false},
    {"512x512 128->128", {128, 128, 3, CONV2D_SAME}, 512, 512, true},
    {"256x256 256->128", {256, 128, 3, CONV2D_SAME}, 256, 256, true},
    {"128x128 256->256", {256, 256, 3, CONV2D_SAME}, 128, 128, true},
    {"32x32   512->512", {512, 512, 3, CONV2D_SAME}, 32, 32, true},
    {"32x32   512->512 1x1", {512, 512, 1, CONV2D_SAME}, 32, 32, false},
    {"512x512 128->128 down", {128, 128, 3, CONV2D_DOWN}, 512, 512, false},
    {"256x256 128->128 up", {128, 128, 3, CONV2D_UP}, 256, 256, false},
    {"512x512 128->3", {128, 3, 3, CONV2D_SAME}, 512, 512, true},
    {"128x128  32->32", {32, 32, 3, CONV2D_SAME}, 128, 128, true},
};

/* The kernel of the path on a tile that stays in the first cache. */
static void peak_task(void *context, int thread_index, int n_threads)
{
    (void)thread_index;
    (void)n_threads;
    const struct tile_f32 *tile = context;
    static _Thread_local float a[12 * PEAK_DEPTH], b[PEAK_DEPTH * TILE_F32_COLUMNS];
    static _Thread_local float c[12 * TILE_F32_COLUMNS];
    for (int i = 0; i < PEAK_CALLS; i++)
        tile->wide[tile->rows_max - 1](c, TILE_F32_COLUMNS, a, PEAK_DEPTH, b, TILE_F32_COLUMNS,
                                       PEAK_DEPTH, true);
}

static double measure_peak(struct stream *stream)
{
    const struct tile_f32 *tile = tile_f32_of(stream);
    double flop = 2.0 * tile->rows_max * TILE_F32_COLUMNS * PEAK_DEPTH * PEAK_CALLS;
    int64_t best = INT64_MAX, begin = clock_monotonic_ns();
    do {
        int64_t start = clock_process_cpu_ns();
        stream_parallel(stream, peak_task, (void *)tile);
        int64_t took = clock_process_cpu_ns() - start;
        best = took < best ? took : best;
    } while (clock_monotonic_ns() - begin < REPEAT_MS * 1000000ll);
    return flop * stream_n_threads(stream) / (double)best;
}

static float *floats(size_t n)
{
    float *x = malloc(sizeof(*x) * n);
    if (!x)
        exit(1);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i % 17) / 17 - 0.5f;
    return x;
}

static double measure(struct stream *stream, const struct conv2d_shape *shape, int width,
                      int height, bool with_norm)
{
    struct conv2d_weight *weight;
    size_t pixels = (size_t)width * height, taps = (size_t)shape->kernel * shape->kernel;
    size_t out = (size_t)conv2d_side(shape->kind, width) * conv2d_side(shape->kind, height);
    float *x = floats(pixels * shape->n_in), *y = floats(out * shape->n_out);
    float *w = floats(taps * shape->n_in * shape->n_out),
          *bias = floats(shape->n_in + shape->n_out);
    struct conv2d_norm norm = {bias, bias, true};
    if (conv2d_weight_create(&weight, shape, w, bias, stream, NULL) != STATUS_OK)
        exit(1);
    int64_t best = INT64_MAX, begin = clock_monotonic_ns();
    do {
        int64_t start = clock_process_cpu_ns();
        if (conv2d(y, x, weight, with_norm ? &norm : NULL, NULL, width, height, stream) !=
            STATUS_OK)
            exit(1);
        int64_t took = clock_process_cpu_ns() - start;
        best = took < best ? took : best;
    } while (clock_monotonic_ns() - begin < REPEAT_MS * 1000000ll);
    conv2d_weight_destroy(weight);
    free(x);
    free(y);
    free(w);
    free(bias);
    return 2.0 * taps * shape->n_in * shape->n_out * out / best;
}

int main(int argc, char **argv)
{
    struct stream *stream;
    struct error err;
    const struct stream_options options = {.n_threads = argc > 1 ? atoi(argv[1]) : 1};
    if (stream_create(&stream, &options, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    double peak = measure_peak(stream);
    printf("path %s, %d threads, peak of a core %.0f GFLOP/s\n",
           code_path_name(stream_code_path(stream)), options.n_threads, peak);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double rate =
            measure(stream, &cases[i].shape, cases[i].width, cases[i].height, cases[i].norm);
        printf("%-24s %7.1f GFLOP/s  %5.1f%%\n", cases[i].name, rate, 100 * rate / peak);
    }
    stream_destroy(stream);
    return 0;
}
