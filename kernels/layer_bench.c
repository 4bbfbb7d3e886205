/*
 * layer_bench.c - the time of a decode step through layers of a given shape, beside the limit of
 * the machine.
 *
 *     layer_bench [--threads 2] [--layers 8] [--context 192] [--hidden 1024] [--inter 2752]
 * [--heads 16] [--kv-heads 16] [--device cpu|cuda]
 *                 [--rows 1,8,32] [--steps 20] [--parts]
 *
 * Every row is a sequence of its own with `context` keys. What a virtual machine gives changes
 * within seconds: so the steps go in blocks, all numbers of rows in turn, and before and after each
 * block read bandwidth and dense peak are measured and the larger taken; limit = max(bytes read /
 * bandwidth, operations / peak), of each block. All figures are medians over the blocks, of the
 * medians of their steps. For machines with other work: "best" of their fastest steps, "as given"
 * of the mean step beside the limit by what the machine gave around it in the mean. --parts
 * prints the fastest call of each operation with what it read, wrote and computed a second; on a
 * device each is then waited for, while steps without it are queued whole and, but for
 * MGPT_CUDA_GRAPHS=off, replayed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/add.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kernels/machine_limits.h"
#include "kernels/rmsnorm.h"
#include "kernels/silu_mul.h"

enum { ROWS_MAX = 256, SERIES_MAX = 16, STEPS_MAX = 1000, N_PARTS = 8, BLOCKS = 9, LIMITS_MS = 30 };

static const char *const part_names[N_PARTS] = {"norm 1", "q k v",   "attention", "o",
                                                "norm 2", "gate up", "silu mul",  "down"};

struct options {
    int threads, layers, context, hidden, inter, heads, kv_heads, steps, parts;
    const char *rows;
    enum device_kind device;
};

struct layer {
    struct linear_weight *qkv, *o, *gate_up, *down;
    struct kv_layer kv;
};

struct bench {
    struct options o;
    struct stream *stream;
    struct layer *layers;
    struct rope_table *rope;
    struct attention_shape shape;
    struct qk_norm norm;
    float *ones;
    void *x, *normed, *wide, *inner, *delta;
    struct kv_segment segments[ROWS_MAX];
    int32_t *blocks;
    size_t kv_bytes, limits_bytes;
    void *limits_buffer;
    int64_t *part_ns; /* [N_PARTS] of the fastest call, in the series under way */
};

static void fill(struct linear_weight *w, int n_out, int n_in)
{
    size_t n = (size_t)n_out * (size_t)n_in;
    bf16 *values = malloc(n * sizeof(*values));
    CHECK(values);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = bf16_from_f32(((float)(state >> 16) - 32768.0f) * 0x1p-20f);
    }
    linear_weight_set(w, 0, n_out, values, DTYPE_BF16);
    free(values);
}

static struct linear_weight *make_weight(struct bench *b, int n_out, int n_in)
{
    struct linear_weight *w;
    struct linear_weight_options options = {n_out, n_in, DTYPE_BF16, false};
    CHECK(linear_weight_create(&w, &options, b->stream, NULL) == STATUS_OK);
    fill(w, n_out, n_in);
    return w;
}

static void *make_memory(struct bench *b, size_t bytes)
{
    void *memory;
    struct error err;
    if (stream_alloc(b->stream, &memory, bytes, &err) != STATUS_OK) {
        fprintf(stderr, "layer_bench: %s\n", err.text);
        exit(1);
    }
    return memory;
}

static void *make_copy(struct bench *b, const void *host, size_t bytes)
{
    void *memory = make_memory(b, bytes);
    stream_upload(b->stream, memory, host, bytes);
    return memory;
}

/* Vectors of ones, and numbers of no meaning as x. */
static void fill_inputs(struct bench *b, int rows_max)
{
    const struct options *o = &b->o;
    size_t n_ones = (size_t)(o->hidden + o->inter), n_x = (size_t)rows_max * (size_t)o->hidden;
    float *ones = malloc(n_ones * sizeof(*ones));
    bf16 *x = malloc(n_x * sizeof(*x));
    CHECK(ones && x);
    for (size_t i = 0; i < n_ones; i++)
        ones[i] = 1;
    for (size_t i = 0; i < n_x; i++)
        x[i] = bf16_from_f32((float)(i % 13) - 6);
    b->ones = make_copy(b, ones, n_ones * sizeof(*ones));
    b->x = make_copy(b, x, n_x * sizeof(*x));
    free(ones);
    free(x);
}

static void make_bench(struct bench *b, int rows_max)
{
    const struct options *o = &b->o;
    int head_dim = o->hidden / o->heads, blocks_a_row = o->context / KV_BLOCK_TOKENS + 1;
    b->shape = (struct attention_shape){o->heads, o->kv_heads, head_dim, DTYPE_BF16};
    struct rope_options rope = {o->context + 1, head_dim, 10000, 1};
    CHECK(rope_table_create(&b->rope, &rope, b->stream, NULL) == STATUS_OK);
    int n_qkv = (o->heads + 2 * o->kv_heads) * head_dim, n_blocks = rows_max * blocks_a_row;
    b->kv_bytes = (size_t)n_blocks * kv_block_bytes(&b->shape);
    b->layers = calloc((size_t)o->layers, sizeof(*b->layers));
    for (int i = 0; i < o->layers; i++) {
        struct layer *l = &b->layers[i];
        l->qkv = make_weight(b, n_qkv, o->hidden);
        l->o = make_weight(b, o->hidden, o->heads * head_dim);
        l->gate_up = make_weight(b, 2 * o->inter, o->hidden);
        l->down = make_weight(b, o->hidden, o->inter);
        l->kv = (struct kv_layer){make_memory(b, b->kv_bytes), n_blocks};
        if (o->device == DEVICE_CPU)
            memset(l->kv.pool, 0x3c, b->kv_bytes); /* 0.0115 each: pages must be there */
    }
    size_t wide = (size_t)(n_qkv > 2 * o->inter ? n_qkv : 2 * o->inter);
    b->limits_bytes = machine_limits_buffer_bytes(b->stream);
    b->limits_buffer = make_memory(b, b->limits_bytes);
    rows_max = linear_padded_rows(rows_max, b->stream);
    fill_inputs(b, rows_max);
    b->norm = (struct qk_norm){b->ones, b->ones, b->ones, b->ones, 1e-5f};
    b->normed = make_memory(b, (size_t)rows_max * (size_t)o->hidden * 2);
    b->delta = make_memory(b, (size_t)rows_max * (size_t)o->hidden * 2);
    b->wide = make_memory(b, (size_t)rows_max * wide * 2);
    b->inner = make_memory(b, (size_t)rows_max * (size_t)o->inter * 2);
    b->blocks = malloc((size_t)n_blocks * sizeof(*b->blocks));
    for (int i = 0; i < n_blocks; i++)
        b->blocks[i] = i;
    for (int r = 0; r < n_blocks / blocks_a_row; r++)
        b->segments[r] = (struct kv_segment){b->blocks + r * blocks_a_row, o->context - 1, 1, r};
}

static void wait(struct bench *b)
{
    struct error err;
    if (stream_wait(b->stream, &err) == STATUS_OK)
        return;
    fprintf(stderr, "layer_bench: %s\n", err.text);
    exit(1);
}

static int64_t mark(struct bench *b, int part, int64_t since)
{
    if (b->o.parts)
        wait(b);
    int64_t now = clock_monotonic_ns();
    int64_t ns = now - since;
    b->part_ns[part] = ns < b->part_ns[part] || !b->part_ns[part] ? ns : b->part_ns[part];
    return now;
}

/* A bench and the rows of its step. */
struct step {
    struct bench *bench;
    int n;
};

static enum status run_layers(void *context)
{
    const struct step *step = context;
    struct bench *b = step->bench;
    const struct options *o = &b->o;
    struct stream *s = b->stream;
    const int n_segments = step->n, n = linear_padded_rows(step->n, s);
    int64_t at = clock_monotonic_ns();
    for (int i = 0; i < o->layers; i++) {
        const struct layer *l = &b->layers[i];
        if (i == 0)
            rmsnorm(b->normed, b->x, b->ones, DTYPE_BF16, n, o->hidden, 1e-5f, s);
        else
            add_rmsnorm(b->normed, b->x, b->delta, b->ones, DTYPE_BF16, n, o->hidden, 1e-5f, s);
        at = mark(b, 0, at);
        linear(b->wide, b->normed, l->qkv, n, s);
        at = mark(b, 1, at);
        attention(b->normed, b->wide, &b->shape, &b->norm, b->rope, b->segments, n_segments, &l->kv,
                  s);
        at = mark(b, 2, at);
        linear(b->delta, b->normed, l->o, n, s);
        at = mark(b, 3, at);
        add_rmsnorm(b->normed, b->x, b->delta, b->ones, DTYPE_BF16, n, o->hidden, 1e-5f, s);
        at = mark(b, 4, at);
        linear(b->wide, b->normed, l->gate_up, n, s);
        at = mark(b, 5, at);
        silu_mul(b->inner, b->wide, DTYPE_BF16, n, o->inter, s);
        at = mark(b, 6, at);
        linear(b->delta, b->inner, l->down, n, s);
        at = mark(b, 7, at);
    }
    return STATUS_OK;
}

static int64_t run_step(struct bench *b, int n)
{
    struct step step = {b, n};
    uint64_t likeness;
    int64_t start = clock_monotonic_ns();
    CHECK(attention_prepare_rows(&likeness, &b->shape, b->segments, n, b->stream) == STATUS_OK);
    CHECK(stream_replay(b->stream, b, b->o.parts ? 0 : likeness, run_layers, &step) == STATUS_OK);
    wait(b);
    return clock_monotonic_ns() - start;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), by_size);
    return values[n / 2];
}

static struct machine_limits measure_limits(struct bench *b)
{
    struct machine_limits limits;
    CHECK(machine_limits_measure(&limits, b->stream, b->limits_buffer, b->limits_bytes, LIMITS_MS,
                                 NULL) == STATUS_OK);
    return limits;
}

struct work {
    double bytes, operations;
};

/* Of one operation of one layer: weights, keys and values, and activations in and out; products
 * and sums. */
static struct work part_work(const struct bench *b, int part, int n_rows)
{
    const struct options *o = &b->o;
    const double n = n_rows, hidden = o->hidden, inter = o->inter, d = b->shape.head_dim;
    const double heads = o->heads * d, kv = o->kv_heads * d, qkv = heads + 2 * kv;
    const double keys = 2 * kv * o->context * n;
    const struct {
        double numbers, operations;
    } parts[N_PARTS] = {
        {4 * n * hidden, 6 * n * hidden}, /* x and delta in, x and y out */
        {hidden * qkv + n * (hidden + qkv), 2 * n * hidden * qkv},
        {keys + 2 * n * (qkv + heads), n * (4 * heads * o->context + 12 * (heads + kv))},
        {hidden * heads + n * (hidden + heads), 2 * n * hidden * heads},
        {4 * n * hidden, 6 * n * hidden},
        {2 * hidden * inter + n * (hidden + 2 * inter), 4 * n * hidden * inter},
        {3 * n * inter, 25 * n * inter}, /* the exponential is about 20 */
        {hidden * inter + n * (hidden + inter), 2 * n * hidden * inter}};
    return (struct work){2 * parts[part].numbers, parts[part].operations};
}

/* What no step can do without: weights, keys and values, and the products. */
static struct work work_of(const struct bench *b, int n)
{
    const struct options *o = &b->o;
    int head_dim = b->shape.head_dim, n_qkv = (o->heads + 2 * o->kv_heads) * head_dim;
    double weights = (double)n_qkv * o->hidden + (double)o->hidden * o->heads * head_dim +
                     3.0 * o->hidden * o->inter;
    double keys = 2.0 * o->kv_heads * head_dim * o->context * n,
           scores = 2.0 * o->heads * head_dim * o->context * n;
    return (struct work){.bytes = 2 * (weights + keys) * o->layers,
                         .operations = 2 * (weights * n + scores) * o->layers};
}

enum { MS, BEST, LIMIT, MEMORY, DENSE, SHARE, BEST_SHARE, GIVEN_SHARE, BANDWIDTH, PEAK, N_FIGURES };

/* All steps of one number of rows. */
struct series {
    int n_rows;
    int64_t part_ns[N_PARTS];
    double figures[N_FIGURES][BLOCKS];
};

static double memory_ms(const struct work *work, double bytes_s)
{
    return work->bytes / bytes_s * 1e3;
}

/* flop_s 0: not measured. */
static double dense_ms(const struct work *work, double flop_s)
{
    return flop_s > 0 ? work->operations / flop_s * 1e3 : 0;
}

/* Some steps between two measurements of the machine; *limits: of the one before, then of the one
 * behind. */
static void run_block(struct bench *b, struct series *series, int block, int n_steps,
                      struct machine_limits *limits)
{
    double ms[STEPS_MAX], sum_ms = 0;
    b->part_ns = series->part_ns;
    for (int i = 0; i < n_steps; i++) {
        ms[i] = (double)run_step(b, series->n_rows) * 1e-6;
        sum_ms += ms[i];
    }
    struct work work = work_of(b, series->n_rows);
    struct machine_limits before = *limits;
    *limits = measure_limits(b);
    double f[N_FIGURES];
    f[MS] = median(ms, n_steps);
    f[BEST] = ms[0];
    f[BANDWIDTH] = fmax(before.read_bytes_s, limits->read_bytes_s);
    f[PEAK] = fmax(before.dense_flop_s, limits->dense_flop_s);
    f[MEMORY] = memory_ms(&work, f[BANDWIDTH]);
    f[DENSE] = dense_ms(&work, f[PEAK]);
    f[LIMIT] = fmax(f[MEMORY], f[DENSE]);
    f[SHARE] = f[LIMIT] / f[MS];
    f[BEST_SHARE] = f[LIMIT] / f[BEST];
    double bytes_s = (before.read_mean_bytes_s + limits->read_mean_bytes_s) / 2;
    double flop_s = (before.dense_mean_flop_s + limits->dense_mean_flop_s) / 2;
    f[GIVEN_SHARE] = fmax(memory_ms(&work, bytes_s), dense_ms(&work, flop_s)) / (sum_ms / n_steps);
    for (int i = 0; i < N_FIGURES; i++)
        series->figures[i][block] = f[i];
}

static void print_parts(const struct bench *b, const struct series *series)
{
    for (int i = 0; i < N_PARTS; i++) {
        struct work work = part_work(b, i, series->n_rows);
        double ns = (double)series->part_ns[i];
        printf("    %-9s %8.1f us %7.1f GB/s %8.1f GFLOP/s\n", part_names[i], ns * 1e-3,
               work.bytes / ns, work.operations / ns);
    }
}

static void print_series(const struct bench *b, struct series *series)
{
    double f[N_FIGURES];
    for (int i = 0; i < N_FIGURES; i++)
        f[i] = median(series->figures[i], BLOCKS);
    struct work work = work_of(b, series->n_rows);
    printf("rows %3d: %.3f ms (best %.3f), limit %.3f ms (memory %.3f, dense %.3f), limit/time "
           "%.3f (best %.3f, as given %.3f); %.1f GB/s of %.1f, %.0f GFLOP/s of %.0f\n",
           series->n_rows, f[MS], f[BEST], f[LIMIT], f[MEMORY], f[DENSE], f[SHARE], f[BEST_SHARE],
           f[GIVEN_SHARE], work.bytes / f[MS] * 1e-6, f[BANDWIDTH] * 1e-9,
           work.operations / f[MS] * 1e-6, f[PEAK] * 1e-9);
    if (b->o.parts)
        print_parts(b, series);
}

static void run_series(struct bench *b, struct series *series, int n_series)
{
    for (int i = 0; i < n_series; i++) {
        b->part_ns = series[i].part_ns;
        for (int k = 0; k < 3; k++) /* a device loads, then records */
            run_step(b, series[i].n_rows);
        memset(series[i].part_ns, 0, sizeof(series[i].part_ns));
    }
    struct machine_limits limits = measure_limits(b);
    for (int block = 0; block < BLOCKS; block++)
        for (int i = 0; i < n_series; i++)
            run_block(b, &series[i], block, (b->o.steps + BLOCKS - 1) / BLOCKS, &limits);
    for (int i = 0; i < n_series; i++)
        print_series(b, &series[i]);
}

/* The numbers of rows in `list`, as series; -1: one of them is none, or there are too many. */
static int read_series(struct series *series, const char *list)
{
    int n = 0;
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        int rows = atoi(at);
        if (rows < 1 || rows > ROWS_MAX || n == SERIES_MAX)
            return -1;
        series[n++].n_rows = rows;
    }
    return n;
}

static int read_option(struct options *o, const char *name, const char *value)
{
    struct {
        const char *name;
        int *number;
    } numbers[] = {{"--threads", &o->threads},   {"--layers", &o->layers},
                   {"--context", &o->context},   {"--hidden", &o->hidden},
                   {"--inter", &o->inter},       {"--heads", &o->heads},
                   {"--kv-heads", &o->kv_heads}, {"--steps", &o->steps}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (!strcmp(name, numbers[i].name)) {
            *numbers[i].number = atoi(value);
            return *numbers[i].number >= 1;
        }
    if (!strcmp(name, "--device")) {
        o->device = !strcmp(value, "cuda") ? DEVICE_CUDA : DEVICE_CPU;
        return !strcmp(value, "cuda") || !strcmp(value, "cpu");
    }
    if (!strcmp(name, "--rows"))
        o->rows = value;
    return !strcmp(name, "--rows");
}

int main(int argc, char **argv)
{
    static struct bench b;
    b.o = (struct options){2, 8, 192, 1024, 2752, 16, 16, 20, 0, "1,8,32", DEVICE_CPU};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--parts")) {
            b.o.parts = 1;
            continue;
        }
        if (i + 1 >= argc || !read_option(&b.o, argv[i], argv[i + 1])) {
            fprintf(stderr, "layer_bench: wrong option '%s'\n", argv[i]);
            return 2;
        }
        i++;
    }
    if (b.o.steps > STEPS_MAX)
        b.o.steps = STEPS_MAX;
    static struct series series[SERIES_MAX];
    int n_series = read_series(series, b.o.rows);
    if (n_series < 0) {
        fprintf(stderr, "layer_bench: --rows '%s', expected up to %d numbers of 1..%d\n", b.o.rows,
                SERIES_MAX, ROWS_MAX);
        return 2;
    }
    struct stream_options options = {
        .n_threads = b.o.threads, .device = b.o.device, .own_cpus = true};
    struct error err;
    if (stream_create(&b.stream, &options, &err) != STATUS_OK) {
        fprintf(stderr, "layer_bench: %s\n", err.text);
        return 1;
    }
    printf("path %s, %d threads, %d layers, hidden %d, inter %d, heads %d/%d, context %d\n",
           stream_path_name(b.stream), b.o.threads, b.o.layers, b.o.hidden, b.o.inter, b.o.heads,
           b.o.kv_heads, b.o.context);
    int rows_max = 1;
    for (int i = 0; i < n_series; i++)
        rows_max = series[i].n_rows > rows_max ? series[i].n_rows : rows_max;
    make_bench(&b, rows_max);
    run_series(&b, series, n_series);
    return 0;
}
