/*
 * machine_limits.c - loops that do nothing but read, and nothing but multiply.
 */
#include "kernels/machine_limits.h"

#include <math.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/machine_memory.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/vector.h"

enum {
    READ_AHEAD_BYTES = 2048,
    READS_A_TURN = 4,
    STREAMS = 4,
    PIECE_BYTES = 64 << 20, /* of the buffer, in a round */
    BUFFER_LEAST_BYTES = 256 << 20,
    CACHES_A_BUFFER = 4,
    BUFFERS_A_MEMORY = 8,
    PEAK_TURNS = 20000
};

size_t machine_limits_buffer_bytes(const struct stream *stream)
{
    const size_t least = BUFFER_LEAST_BYTES;
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t free_bytes, total_bytes;
    if (stream_device(stream) || cache <= 0 || !machine_memory(&free_bytes, &total_bytes))
        return least;
    size_t bytes = (size_t)cache * CACHES_A_BUFFER, most = free_bytes / BUFFERS_A_MEMORY;
    bytes = bytes < most ? bytes : most;
    return bytes > least ? bytes : least;
}

/* Rounds of a loop. */
struct rounds {
    double best; /* the most a second */
    double amount, ns;
};

static void count_round(struct rounds *rounds, double amount, int64_t start_ns, int64_t end_ns)
{
    double ns = (double)(end_ns - start_ns);
    rounds->best = fmax(rounds->best, amount * 1e9 / ns);
    rounds->amount += amount;
    rounds->ns += ns;
}

static double mean_of(const struct rounds *rounds)
{
    return rounds->ns > 0 ? rounds->amount * 1e9 / rounds->ns : 0;
}

struct read_task {
    const char *buffer;
    size_t bytes;
    uint32_t sums[STREAM_THREADS_MAX][LANES]; /* kept, so that no read can be left out */
};

/* n_streams side by side, READS_A_TURN of each in turn; ahead: how far instructions fetch, 0: the
 * processor alone does. Both are constants. */
VECTOR_INLINE void read_streams(const char *from, size_t bytes, uint32_t sum[LANES],
                                const size_t n_streams, const size_t ahead)
{
    const size_t n = bytes / n_streams, turn = READS_A_TURN * sizeof(u32x16);
    u32x16 sums[READS_A_TURN] = {{0}};
    for (size_t at = 0; at + turn <= n; at += turn)
        for (size_t stream = 0; stream < n_streams; stream++)
#pragma GCC unroll 4
            for (size_t i = 0; i < READS_A_TURN; i++) {
                const char *place = from + stream * n + at + i * sizeof(u32x16);
                u32x16 v;
                if (ahead)
                    __builtin_prefetch(place + ahead);
                memcpy(&v, place, sizeof(v));
                sums[i] += v;
            }
    for (int i = 1; i < READS_A_TURN; i++)
        sums[0] += sums[i];
    memcpy(sum, &sums[0], sizeof(sums[0]));
}

VECTOR_INLINE void read_one_body(const char *from, size_t bytes, uint32_t sum[LANES])
{
    read_streams(from, bytes, sum, 1, READ_AHEAD_BYTES);
}
FOR_EACH_PATH(read_one, (const char *from, size_t bytes, uint32_t sum[LANES]), (from, bytes, sum))

VECTOR_INLINE void read_several_body(const char *from, size_t bytes, uint32_t sum[LANES])
{
    read_streams(from, bytes, sum, STREAMS, 0);
}
FOR_EACH_PATH(read_several, (const char *from, size_t bytes, uint32_t sum[LANES]),
              (from, bytes, sum))

typedef void (*read_function)(const char *from, size_t bytes, uint32_t sum[LANES]);

struct read_launch {
    struct read_task *task;
    read_function read;
};

static void read_share(void *context, int thread_index, int n_threads)
{
    const struct read_launch *launch = context;
    int64_t first, last;
    stream_share((int64_t)(launch->task->bytes / 4096), thread_index, n_threads, &first, &last);
    launch->read(launch->task->buffer + first * 4096, (size_t)(last - first) * 4096,
                 launch->task->sums[thread_index]);
}

/* The better one of two ways of reading counts. */
static void measure_reading(struct machine_limits *limits, struct stream *stream,
                            const char *buffer, size_t buffer_bytes, int ms)
{
    enum { WAYS = 2 };
    struct read_task task = {.bytes = buffer_bytes < PIECE_BYTES ? buffer_bytes : PIECE_BYTES};
    struct rounds rounds[WAYS] = {{.best = 0}};
    const size_t n_pieces = buffer_bytes / task.bytes;
    enum code_path path = stream_code_path(stream);
    const read_function ways[WAYS] = {read_one_of(path), read_several_of(path)};
    int64_t end = clock_monotonic_ns() + (int64_t)ms * 1000000, now = 0;
    for (size_t round = 0; round < WAYS || now < end; round++) {
        struct read_launch launch = {&task, ways[round % WAYS]};
        task.buffer = buffer + round % n_pieces * task.bytes;
        int64_t start = clock_monotonic_ns();
        stream_parallel(stream, read_share, &launch);
        now = clock_monotonic_ns();
        count_round(&rounds[round % WAYS], (double)task.bytes, start, now);
    }
    for (int i = 0; i < WAYS; i++) {
        limits->read_bytes_s = fmax(limits->read_bytes_s, rounds[i].best);
        limits->read_mean_bytes_s = fmax(limits->read_mean_bytes_s, mean_of(&rounds[i]));
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Results go where the compiler cannot follow them. */
#define KEEP(value) __asm__ volatile("" : "+v"(value))

enum { CHAINS = 16 };

__attribute__((target("avx512f,avx512bf16"))) static double peak_avx512bf16(int turns)
{
    __m512 sum[CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3c003c00), w = x;
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_setzero_ps();
    KEEP(x);
    for (int t = 0; t < turns; t++)
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], x, w);
    for (int i = 0; i < CHAINS; i++)
        KEEP(sum[i]);
    return CHAINS * 64.0;
}

enum { AVX2_CHAINS = 12 };

/* bf16 has to be widened first; that is not counted, so the AVX2 version cannot reach this. */
__attribute__((target("avx2,fma"))) static double peak_avx2(int turns)
{
    __m256 sum[AVX2_CHAINS];
    __m256 x = _mm256_set1_ps(1e-3f), w = x;
    for (int i = 0; i < AVX2_CHAINS; i++)
        sum[i] = _mm256_setzero_ps();
    __asm__ volatile("" : "+x"(x));
    for (int t = 0; t < turns; t++)
#pragma GCC unroll 12
        for (int i = 0; i < AVX2_CHAINS; i++)
            sum[i] = _mm256_fmadd_ps(x, w, sum[i]);
    for (int i = 0; i < AVX2_CHAINS; i++)
        __asm__ volatile("" : "+x"(sum[i]));
    return AVX2_CHAINS * 16.0;
}

__attribute__((target("amx-tile,amx-bf16"))) static double peak_amx(int turns)
{
    const struct amx_config config = amx_config_of(0, 0);
    amx_load_config(&config);
    for (int t = 0; t < turns; t++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 4 * 2.0 * 16 * 16 * 32;
}
#endif

/* For the portable path: the tile product on operands of the first-level cache. */
static double peak_of_tile(tile_multiply multiply, int turns)
{
    enum { ROWS = 32, PAIRS = 64 };
    static const _Alignas(64) bf16 a[ROWS * 2 * PAIRS], b[PAIRS * TILE_GROUPS_MAX * TILE_PAIR];
    float acc[ROWS * TILE_COLUMNS];
    struct tile_product p = {.acc = acc,
                             .ld_acc = TILE_COLUMNS,
                             .a = a,
                             .ld_a = 2 * PAIRS,
                             .b = b,
                             .group_stride = TILE_PAIR,
                             .pair_stride = TILE_GROUPS_MAX * TILE_PAIR,
                             .n_rows = ROWS,
                             .n_groups = TILE_GROUPS_MAX,
                             .n_pairs = PAIRS,
                             .n_products = 1};
    double operations = 2.0 * ROWS * TILE_COLUMNS * 2 * PAIRS;
    int products = (int)((double)turns * 1024 / operations) + 1;
    for (int i = 0; i < products; i++)
        multiply(&p);
    return operations * products / turns;
}

struct peak_task {
    enum code_path path;
    int turns;
    double operations;                         /* of one thread, a round */
    struct rounds threads[STREAM_THREADS_MAX]; /* each by itself: they wait for each other */
};

static void peak_share(void *context, int thread_index, int n_threads)
{
    struct peak_task *task = context;
    int64_t start = clock_monotonic_ns();
    (void)n_threads;
    double operations;
#if defined(__x86_64__)
    if (task->path == CODE_PATH_AMX)
        operations = peak_amx(task->turns);
    else if (task->path == CODE_PATH_AVX512BF16)
        operations = peak_avx512bf16(task->turns);
    else if (task->path == CODE_PATH_AVX2)
        operations = peak_avx2(task->turns);
    else
#endif
        operations = peak_of_tile(tile_multiply_of(task->path), task->turns);
    operations *= task->turns;
    count_round(&task->threads[thread_index], operations, start, clock_monotonic_ns());
    if (thread_index == 0)
        task->operations = operations;
}

static void measure_peak(struct machine_limits *limits, struct stream *stream, int ms)
{
    struct peak_task task = {.path = stream_code_path(stream), .turns = PEAK_TURNS};
    struct rounds together = {.best = 0};
    const int n_threads = stream_n_threads(stream);
    int64_t end = clock_monotonic_ns() + (int64_t)ms * 1000000, now;
    do {
        int64_t start = clock_monotonic_ns();
        stream_parallel(stream, peak_share, &task);
        now = clock_monotonic_ns();
        count_round(&together, task.operations * n_threads, start, now);
    } while (now < end);
    double mean = 0;
    for (int i = 0; i < n_threads; i++)
        mean += mean_of(&task.threads[i]);
    limits->dense_flop_s = together.best;
    limits->dense_mean_flop_s = fmin(mean, together.best); /* the best includes the joining */
}

/* A device copies one half of the buffer to the other: as many bytes are read as written. */
static enum status measure_copies(struct machine_limits *limits, struct stream *stream,
                                  char *buffer, size_t buffer_bytes, int ms, struct error *err)
{
    enum { COPIES = 8 };
    struct rounds rounds = {.best = 0};
    const size_t half = buffer_bytes / 2;
    int64_t end = clock_monotonic_ns() + (int64_t)ms * 1000000, now = 0;
    enum status st = STATUS_OK;
    while (st == STATUS_OK && now < end) {
        st = stream_wait(stream, err);
        int64_t start = clock_monotonic_ns();
        for (int i = 0; i < COPIES; i++)
            stream_copy(stream, buffer + half, buffer, half);
        if (st == STATUS_OK)
            st = stream_wait(stream, err);
        now = clock_monotonic_ns();
        count_round(&rounds, 2.0 * COPIES * (double)half, start, now);
    }
    limits->read_bytes_s = rounds.best;
    limits->read_mean_bytes_s = mean_of(&rounds);
    return st;
}

enum status machine_limits_measure(struct machine_limits *limits, struct stream *stream,
                                   void *buffer, size_t buffer_bytes, int ms, struct error *err)
{
    *limits = (struct machine_limits){0};
    if (stream_device(stream))
        return measure_copies(limits, stream, buffer, buffer_bytes, ms, err);
    measure_peak(limits, stream, ms);
    measure_reading(limits, stream, buffer, buffer_bytes, ms);
    return STATUS_OK;
}
