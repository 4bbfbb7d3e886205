/*
 * sample_bench.c - the time of a draw: n logits with guidance, all allowed, by top-k. The fastest
 * of many, one thread.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/sample.h"

static double fastest_us(const struct sample_request *request, struct stream *stream)
{
    int64_t best = INT64_MAX;
    struct sample_request r = *request;
    for (int i = 0; i < 300; i++) {
        int32_t id;
        r.seed = (uint64_t)i;
        int64_t start = clock_monotonic_ns();
        CHECK(sample(&id, &r, 1, stream, NULL) == STATUS_OK);
        int64_t ns = clock_monotonic_ns() - start;
        best = ns < best ? ns : best;
    }
    return (double)best * 1e-3;
}

int main(void)
{
    static const struct {
        int n, top_k;
    } cases[] = {{8192, 2000}, {8192, 0}, {65536, 10}, {65536, 2000}, {65536, 0}};
    struct stream_options options = {.n_threads = 1};
    struct stream *stream;
    CHECK(stream_create(&stream, &options, NULL) == STATUS_OK);
    enum { N_MAX = 65536 };
    float *c = malloc(N_MAX * sizeof(*c)), *u = malloc(N_MAX * sizeof(*u));
    uint32_t state = 1;
    for (int i = 0; i < N_MAX; i++) {
        float sum[2] = {0};
        for (int k = 0; k < 24; k++) {
            state = state * 1664525u + 1013904223u;
            sum[k % 2] += (float)(state >> 8) * 0x1p-24f - 0.5f;
        }
        c[i] = 3 * sum[0];
        u[i] = 3 * sum[1];
    }
    printf("path %s\n", code_path_name(stream_code_path(stream)));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sample_request r = {.logits = c,
                                   .unconditional = u,
                                   .n = cases[i].n,
                                   .guidance = 4,
                                   .temperature = 1,
                                   .top_k = cases[i].top_k};
        printf("%5d logits, top-k %4d: %.1f us a draw\n", r.n, r.top_k, fastest_us(&r, stream));
    }
    free(c);
    free(u);
    stream_destroy(stream);
    return 0;
}
