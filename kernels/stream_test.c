/*
 * stream_test.c - goal: every task runs once on every thread, also after the threads have gone to
 * sleep; waiting costs no CPU for long; the code path is the one asked for, and asking for what is
 * not there is refused in words; memory is zeroed, aligned and one's own.
 */
#include "kernels/test_tools.h"

#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"

struct tally {
    _Atomic int runs[8];
    int plain[8]; /* written by one thread each, read by the caller afterwards */
    int slow_thread;
};

static void count(void *context, int thread_index, int n_threads)
{
    struct tally *tally = context;
    if (thread_index == tally->slow_thread)
        usleep(2000);
    atomic_fetch_add(&tally->runs[thread_index], 1);
    tally->plain[thread_index] += n_threads;
}

static void test_every_thread_runs_every_task(void **state)
{
    (void)state;
    static const int thread_counts[] = {1, 2, 3, 8};
    for (size_t i = 0; i < sizeof(thread_counts) / sizeof(thread_counts[0]); i++) {
        int n = thread_counts[i];
        struct stream *stream = test_stream(CODE_PATH_PORTABLE, n);
        assert_int_equal(stream_n_threads(stream), n);
        struct tally tally = {.slow_thread = -1};
        for (int round = 1; round <= 500; round++) {
            if (round % 100 == 0)
                usleep(3000); /* long enough for them to sleep */
            tally.slow_thread = round % 50 == 0 ? round / 50 % n : -1;
            stream_parallel(stream, count, &tally);
            for (int t = 0; t < n; t++) {
                assert_int_equal(atomic_load(&tally.runs[t]), round);
                assert_int_equal(tally.plain[t], round * n);
            }
        }
        stream_destroy(stream);
    }
}

static void test_idle_threads_sleep(void **state)
{
    (void)state;
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 4);
    struct tally tally = {.slow_thread = -1};
    stream_parallel(stream, count, &tally);
    int64_t before = clock_process_cpu_ns();
    usleep(200 * 1000);
    int64_t used_ms = (clock_process_cpu_ns() - before) / 1000000;
    assert_true(used_ms < 50); /* three spinning threads would use up to 600 */
    stream_destroy(stream);
}

static void test_shares_cover_everything(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 40; n++)
        for (int threads = 1; threads < 9; threads++) {
            int64_t next = 0;
            for (int t = 0; t < threads; t++) {
                int64_t first, last;
                stream_share(n, t, threads, &first, &last);
                assert_int_equal(first, next);
                assert_true(last - first <= n / threads + 1);
                next = last;
            }
            assert_int_equal(next, n);
        }
}

static void test_forced_paths(void **state)
{
    (void)state;
    enum code_path path;
    struct error err;
    unsetenv("MGPT_CPU_PATH");
    assert_int_equal(code_path_pick(&path, &err), STATUS_OK);
    enum code_path best = path;
    printf("best path: %s\n", code_path_name(best));
    for (int p = 0; p < CODE_PATH_COUNT; p++) {
        setenv("MGPT_CPU_PATH", code_path_name((enum code_path)p), 1);
        enum status st = code_path_pick(&path, &err);
        if (code_path_available((enum code_path)p)) {
            assert_int_equal(st, STATUS_OK);
            assert_int_equal(path, p);
        } else {
            assert_int_equal(st, STATUS_UNSUPPORTED);
            assert_non_null(strstr(err.text, code_path_name((enum code_path)p)));
        }
        assert_true(p <= (int)best || !code_path_available((enum code_path)p));
    }
    setenv("MGPT_CPU_PATH", "sse9", 1);
    struct stream *stream;
    struct stream_options options = {.n_threads = 1};
    assert_int_equal(stream_create(&stream, &options, &err), STATUS_INVALID);
    assert_null(stream);
    assert_non_null(strstr(err.text, "sse9"));
    setenv("MGPT_CPU_PATH", "portable", 1);
    assert_int_equal(stream_create(&stream, &options, &err), STATUS_OK);
    assert_int_equal(stream_code_path(stream), CODE_PATH_PORTABLE);
    stream_destroy(stream);
    unsetenv("MGPT_CPU_PATH");
}

static void where(void *context, int thread_index, int n_threads)
{
    (void)n_threads;
    ((int *)context)[thread_index] = sched_getcpu();
}

static void test_pinning(void **state)
{
    (void)state;
    cpu_set_t before;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    int cpus[3], n = 0, seen[3];
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 3; cpu++)
        if (CPU_ISSET(cpu, &before))
            cpus[n++] = cpu;
    struct stream_options options = {.n_threads = n, .cpus = cpus};
    struct stream *stream;
    struct error err;
    assert_int_equal(stream_create_on_path(&stream, &options, CODE_PATH_PORTABLE, &err), STATUS_OK);
    stream_parallel(stream, where, seen);
    for (int i = 0; i < n; i++)
        assert_int_equal(seen[i], cpus[i]);
    stream_destroy(stream);
    cpu_set_t after;
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    cpus[0] = CPU_SETSIZE - 1;
    options.n_threads = 1;
    if (!CPU_ISSET(CPU_SETSIZE - 1, &before)) {
        assert_int_equal(stream_create_on_path(&stream, &options, CODE_PATH_PORTABLE, &err),
                         STATUS_INVALID);
        assert_null(stream);
    }
    options = (struct stream_options){.n_threads = 0};
    assert_int_equal(stream_create_on_path(&stream, &options, CODE_PATH_PORTABLE, &err),
                     STATUS_INVALID);
    options.n_threads = STREAM_THREADS_MAX + 1;
    assert_int_equal(stream_create_on_path(&stream, &options, CODE_PATH_PORTABLE, &err),
                     STATUS_INVALID);
}

/* As many threads as the process may use CPUs: each has its own, without being told which. */
static void test_a_cpu_for_each(void **state)
{
    (void)state;
    cpu_set_t before, two;
    int n = 0, seen[2];
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&two);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &two);
            n++;
        }
    if (n < 2)
        skip();
    assert_int_equal(sched_setaffinity(0, sizeof(two), &two), 0);
    struct stream_options options = {.n_threads = 2, .own_cpus = true};
    struct stream *stream;
    assert_int_equal(stream_create_on_path(&stream, &options, CODE_PATH_PORTABLE, NULL), STATUS_OK);
    for (int round = 0; round < 100; round++) {
        stream_parallel(stream, where, seen);
        assert_true(seen[0] < seen[1]);
    }
    stream_destroy(stream);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

static void test_memory(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 4096, (1 << 20) - 1, 1 << 20, (3 << 20) + 5};
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        void *memory;
        assert_int_equal(stream_alloc(stream, &memory, sizes[i], NULL), STATUS_OK);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(((char *)memory)[j], 0);
        memset(memory, 1, sizes[i]);
        stream_free(stream, memory, sizes[i]);
    }
    void *memory;
    struct error err;
    assert_int_equal(stream_alloc(stream, &memory, SIZE_MAX - 1, &err), STATUS_NOMEM);
    assert_null(memory);
    assert_null(stream_scratch(stream, 0, SIZE_MAX / 4));
    char *scratch = stream_scratch(stream, 0, 100);
    assert_non_null(scratch);
    assert_ptr_equal(stream_scratch(stream, 0, 50), scratch);
    stream_destroy(stream);
    stream_destroy(NULL);
}

/* Pieces of any size do not touch each other and are zero, also where others were before. */
static void test_packed_memory(void **state)
{
    (void)state;
    enum { ROUNDS = 2, PIECES = 5 };
    static const size_t sizes[PIECES] = {(3 << 20) + 5, 100, 1 << 20, (2 << 20) - 4096, 5 << 20};
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 2);
    char *pieces[ROUNDS][PIECES];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < PIECES; i++) {
            void *memory;
            assert_int_equal(stream_alloc_packed(stream, &memory, sizes[i], NULL), STATUS_OK);
            assert_int_equal((uintptr_t)memory % 64, 0);
            pieces[round][i] = memory;
            for (size_t j = 0; j < sizes[i]; j++)
                assert_int_equal(pieces[round][i][j], 0);
            memset(memory, i + 1, sizes[i]);
        }
        assert_ptr_equal(pieces[round][2], pieces[round][0] + (3 << 20) + 4096);
        for (int i = 0; i < PIECES; i++)
            for (size_t j = 0; j < sizes[i]; j++)
                assert_int_equal(pieces[round][i][j], i + 1);
        for (int i = 0; i < PIECES; i++)
            stream_free(stream, pieces[round][i], sizes[i]);
    }
    assert_ptr_equal(pieces[0][0], pieces[1][0]);
    void *memory;
    struct error err;
    assert_int_equal(stream_alloc_packed(stream, &memory, SIZE_MAX - 1, &err), STATUS_NOMEM);
    assert_null(memory);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_thread_runs_every_task),
        cmocka_unit_test(test_idle_threads_sleep),
        cmocka_unit_test(test_shares_cover_everything),
        cmocka_unit_test(test_forced_paths),
        cmocka_unit_test(test_pinning),
        cmocka_unit_test(test_a_cpu_for_each),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_packed_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
