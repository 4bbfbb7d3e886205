/*
 * share_queue_test.c - goal: every unit is given out once, whoever is slow; a thread keeps to its
 * own run while there is one, and then takes the far ends of others'.
 */
#include "kernels/test_tools.h"

#include <sched.h>

#include "kernels/cpu/share_queue.h"

static void test_own_run_first_then_the_ends_of_others(void **state)
{
    (void)state;
    struct share_queue *queue = malloc(sizeof(*queue));
    share_queue_init(queue, 9, 3);
    static const struct {
        int thread, unit;
    } taken[] = {{1, 3}, {1, 4}, {1, 5}, {1, 2},  {1, 8}, {0, 0},
                 {2, 6}, {1, 1}, {0, 7}, {1, -1}, {0, -1}};
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
        assert_int_equal(share_queue_take(queue, taken[i].thread), taken[i].unit);
    share_queue_init(queue, 0, 2);
    assert_int_equal(share_queue_take(queue, 1), -1);
    free(queue);
}

struct count {
    struct share_queue queue;
    _Atomic int times[5000];
};

/* Thread 0 leaves its run to the others now and then. */
static void take_all(void *context, int thread_index, int n_threads)
{
    struct count *count = context;
    int unit;
    while ((unit = share_queue_take(&count->queue, thread_index)) >= 0) {
        atomic_fetch_add(&count->times[unit], 1);
        if (thread_index == 0 && n_threads > 1 && unit % 8 == 3)
            sched_yield();
    }
}

static void test_every_unit_once(void **state)
{
    (void)state;
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 4);
    struct count *count = malloc(sizeof(*count));
    static const int sizes[] = {1, 3, 4, 7, 64, 5000};
    for (int round = 0; round < 60; round++) {
        int n = sizes[round % 6];
        memset(count->times, 0, sizeof(count->times));
        share_queue_init(&count->queue, n, 4);
        stream_parallel(stream, take_all, count);
        for (int i = 0; i < 5000; i++)
            assert_int_equal(count->times[i], i < n);
    }
    free(count);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_run_first_then_the_ends_of_others),
        cmocka_unit_test(test_every_unit_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
