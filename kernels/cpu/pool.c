/*
 * pool.c - publish, spin, sleep, join.
 */
#include "kernels/cpu/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

/* Operations of one step follow each other within microseconds; steps within milliseconds. */
enum { SPIN_NS = 50 * 1000, PAUSES_A_LOOK = 16 };

struct pool_thread {
    struct pool *pool;
    pthread_t handle;
    int index, cpu; /* cpu: -1 when not pinned */
};

struct pool {
    int n_threads, n_started;
    int spin_ns;
    bool caller_pinned;
    cpu_set_t caller_cpus; /* before that; it gets them back */
    stream_task task;      /* published by generation */
    void *context;
    _Alignas(64) _Atomic uint32_t generation; /* of the newest task */
    _Atomic uint32_t n_sleepers;              /* threads that may be asleep on generation */
    _Atomic int stop;
    _Alignas(
        64) _Atomic uint32_t n_running; /* threads but the caller that have not ended the task */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) struct pool_thread threads[]; /* [n_threads], [0] unused */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Spins until *word differs from `value` (1) or the time is over (0). */
static int spin_while_equal(_Atomic uint32_t *word, uint32_t value, int spin_ns)
{
    int64_t end = 0;
    do {
        for (int i = 0; i < PAUSES_A_LOOK; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value)
                return 1;
            relax();
        }
        int64_t now = clock_monotonic_ns();
        if (!end)
            end = now + spin_ns;
        else if (now >= end)
            return 0;
    } while (spin_ns);
    return 0;
}

static uint32_t wait_for_task(struct pool *pool, uint32_t seen)
{
    if (!spin_while_equal(&pool->generation, seen, pool->spin_ns)) {
        /* Either the publisher sees the sleeper and wakes it, or futex_wait sees the new
         * generation. */
        atomic_fetch_add(&pool->n_sleepers, 1);
        while (atomic_load(&pool->generation) == seen)
            futex_wait(&pool->generation, seen);
        atomic_fetch_sub(&pool->n_sleepers, 1);
    }
    return atomic_load_explicit(&pool->generation, memory_order_acquire);
}

static void *thread_main(void *argument)
{
    struct pool_thread *thread = argument;
    struct pool *pool = thread->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_task(pool, seen);
        if (atomic_load(&pool->stop))
            return NULL;
        pool->task(pool->context, thread->index, pool->n_threads);
        if (atomic_fetch_sub(&pool->n_running, 1) == 1 && atomic_load(&pool->caller_sleeps))
            futex_wake(&pool->n_running, 1);
    }
}

static void wait_for_others(struct pool *pool)
{
    uint32_t left;
    int64_t end = 0;
    while ((left = atomic_load_explicit(&pool->n_running, memory_order_acquire))) {
        int64_t now = clock_monotonic_ns();
        if (!end)
            end = now + pool->spin_ns;
        if (now < end && spin_while_equal(&pool->n_running, left, (int)(end - now)))
            continue;
        if (clock_monotonic_ns() < end)
            continue;
        atomic_store(&pool->caller_sleeps, 1);
        while ((left = atomic_load(&pool->n_running)))
            futex_wait(&pool->n_running, left);
        atomic_store(&pool->caller_sleeps, 0);
    }
}

void pool_run(struct pool *pool, stream_task task, void *context)
{
    if (pool->n_threads == 1) {
        task(context, 0, 1);
        return;
    }
    pool->task = task;
    pool->context = context;
    atomic_store(&pool->n_running, (uint32_t)pool->n_threads - 1);
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->n_sleepers))
        futex_wake(&pool->generation, pool->n_threads);
    task(context, 0, pool->n_threads);
    wait_for_others(pool);
}

static enum status pin(pthread_t handle, int cpu, struct error *err)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return error_set(err, STATUS_INVALID, "CPU %d is not in 0..%d", cpu, CPU_SETSIZE - 1);
    CPU_SET(cpu, &set);
    int failure = pthread_setaffinity_np(handle, sizeof(set), &set);
    if (failure)
        return error_set_errno(err, STATUS_INVALID, failure, "cannot pin a thread to CPU %d", cpu);
    return STATUS_OK;
}

static enum status start_thread(struct pool *pool, int index, int cpu, struct error *err)
{
    struct pool_thread *thread = &pool->threads[index];
    thread->pool = pool;
    thread->index = index;
    thread->cpu = cpu;
    int failure = pthread_create(&thread->handle, NULL, thread_main, thread);
    if (failure)
        return error_set_errno(err, STATUS_NOMEM, failure, "cannot start kernel thread %d", index);
    pool->n_started++;
    return cpu >= 0 ? pin(thread->handle, cpu, err) : STATUS_OK;
}

static int nth_cpu(const cpu_set_t *set, int n)
{
    int cpu = 0;
    while (!CPU_ISSET(cpu, set) || n-- > 0)
        cpu++;
    return cpu;
}

enum status pool_create(struct pool **out, const struct stream_options *options, struct error *err)
{
    *out = NULL;
    int n = options->n_threads;
    if (n < 1 || n > STREAM_THREADS_MAX)
        return error_set(err, STATUS_INVALID, "n_threads is %d, expected 1..%d", n,
                         STREAM_THREADS_MAX);
    cpu_set_t allowed;
    bool is_known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
    bool spin = !is_known || CPU_COUNT(&allowed) >= n;
    /* Two threads that wait for each other may be left on one of two CPUs for seconds. */
    bool one_each = options->own_cpus && !options->cpus && is_known && CPU_COUNT(&allowed) == n;
    size_t bytes =
        (sizeof(struct pool) + (size_t)n * sizeof(struct pool_thread) + 63) & ~(size_t)63;
    struct pool *pool = aligned_alloc(64, bytes);
    if (!pool)
        return error_set(err, STATUS_NOMEM, "cannot allocate a pool of %d threads", n);
    *pool = (struct pool){.n_threads = n, .spin_ns = spin ? SPIN_NS : 0, .caller_cpus = allowed};
    /* The caller is pinned last: threads start with the mask of their creator. */
    for (int i = 1; i <= n; i++) {
        int cpu = options->cpus ? options->cpus[i % n] : one_each ? nth_cpu(&allowed, i % n) : -1;
        enum status st = STATUS_OK;
        if (i < n)
            st = start_thread(pool, i, cpu, err);
        else if (cpu >= 0)
            st = pin(pthread_self(), cpu, err);
        if (st != STATUS_OK) {
            pool_destroy(pool);
            return st;
        }
        pool->caller_pinned = i == n && cpu >= 0 && is_known;
    }
    *out = pool;
    return STATUS_OK;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, 1);
    atomic_fetch_add(&pool->generation, 1);
    futex_wake(&pool->generation, pool->n_threads);
    for (int i = 1; i <= pool->n_started; i++)
        CHECK(pthread_join(pool->threads[i].handle, NULL) == 0);
    if (pool->caller_pinned)
        pthread_setaffinity_np(pthread_self(), sizeof(pool->caller_cpus), &pool->caller_cpus);
    free(pool);
}
