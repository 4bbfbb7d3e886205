/*
 * measure.c - one stream after the other, each with more threads.
 */
#include "worker/measure.h"

#include <stdio.h>

#include "base/options.h"
#include "kernels/machine_limits.h"
#include "worker/cpu_list.h"

struct measure {
    int n_threads, ms;
};

static enum status measure_with(const struct measure *measure, int n_threads, struct error *err)
{
    struct stream *stream;
    struct stream_options options = {.n_threads = n_threads, .own_cpus = true};
    struct machine_limits limits;
    enum status st = stream_create(&stream, &options, err);
    if (st != STATUS_OK)
        return st;
    const size_t buffer_bytes = machine_limits_buffer_bytes(stream);
    void *buffer;
    st = stream_alloc(stream, &buffer, buffer_bytes, err);
    /* The first is thrown away: what was zeroed a moment ago still leaves the caches meanwhile. */
    for (int i = 0; st == STATUS_OK && i < 2; i++)
        st = machine_limits_measure(&limits, stream, buffer, buffer_bytes, measure->ms, err);
    if (st == STATUS_OK && n_threads == 1)
        printf("{\"code_path\": \"%s\", \"limits\": [", code_path_name(stream_code_path(stream)));
    if (st == STATUS_OK)
        printf("%s{\"threads\": %d, \"read_bytes_s\": %.6g, \"dense_flop_s\": %.6g, "
               "\"read_mean_bytes_s\": %.6g, \"dense_mean_flop_s\": %.6g}",
               n_threads == 1 ? "" : ", ", n_threads, limits.read_bytes_s, limits.dense_flop_s,
               limits.read_mean_bytes_s, limits.dense_mean_flop_s);
    stream_free(stream, buffer, buffer_bytes);
    stream_destroy(stream);
    return st;
}

static enum status measure_all(const struct measure *measure, struct error *err)
{
    int n_most = measure->n_threads > 0 ? measure->n_threads : cpu_list_n_allowed();
    if (n_most > STREAM_THREADS_MAX)
        n_most = STREAM_THREADS_MAX;
    for (int n = 1;; n = 2 * n < n_most ? 2 * n : n_most) {
        enum status st = measure_with(measure, n, err);
        if (st != STATUS_OK || n == n_most)
            return st;
    }
}

int measure_main(int argc, char **argv)
{
    static const struct option table[] = {
        {"threads", "N", OPTION_INT, offsetof(struct measure, n_threads), .default_value = "0",
         .min = 0, .max = STREAM_THREADS_MAX,
         .help = "most threads, 0: one for each CPU that may be used"},
        {"ms", "N", OPTION_INT, offsetof(struct measure, ms), .default_value = "300", .min = 1,
         .max = 60000, .help = "time of each measurement"},
        {0}};
    static const struct option_set set = {
        .program = "mgpt-worker --measure",
        .about = "Read bandwidth and dense peak of this machine with 1, 2, 4 ... threads, as JSON.",
        .options = table,
        .example = "mgpt-worker --measure --threads 2"};
    struct measure measure = {0};
    struct error err;
    int outcome = options_start(&set, &measure, argc, argv);
    if (outcome >= 0)
        return outcome;
    if (measure_all(&measure, &err) != STATUS_OK) {
        fprintf(stderr, "mgpt-worker: %s\n", err.text);
        return 1;
    }
    return printf("]}\n") < 0 || fflush(stdout) != 0;
}
