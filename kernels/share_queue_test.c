/*
 * share_queue_test.c - goal: every unit is given out once, whoever is slow; a thread keeps to its
 * own run while there is one, item by item, and then takes the far ends of others'.
 */
#include "kernels/test_tools.h"

#include <sched.h>

#include "kernels/cpu/share_queue.h"

struct taking {
    int thread, unit, n;
};

static void expect(struct share_queue *queue, const struct taking *taken, size_t n_taken)
{
    for (size_t i = 0; i < n_taken; i++) {
        int n = 0;
        assert_int_equal(share_queue_take(queue, taken[i].thread, &n), taken[i].unit);
        if (taken[i].unit >= 0)
            assert_int_equal(n, taken[i].n);
    }
}

static void test_own_run_first_then_the_ends_of_others(void **state)
{
    (void)state;
    struct share_queue *queue = malloc(sizeof(*queue));
    share_queue_init(queue, 9, 1, 3);
    static const struct taking taken[] = {{1, 3, 1}, {1, 4, 1},  {1, 5, 1}, {1, 2, 1},
                                          {1, 8, 1}, {0, 0, 1},  {2, 6, 1}, {1, 1, 1},
                                          {0, 7, 1}, {1, -1, 0}, {0, -1, 0}};
    expect(queue, taken, sizeof(taken) / sizeof(taken[0]));
    share_queue_init(queue, 0, 1, 2);
    expect(queue, &(struct taking){1, -1, 0}, 1);
    free(queue);
}

/* Thread 0 has units 0 to 8, thread 1 units 9 to 17. */
static void test_own_items_are_whole_but_for_the_last(void **state)
{
    (void)state;
    struct share_queue *queue = malloc(sizeof(*queue));
    share_queue_init(queue, 6, 3, 2);
    static const struct taking taken[] = {{0, 0, 3},  {1, 9, 3},  {1, 12, 3}, {1, 15, 1},
                                          {1, 16, 1}, {1, 17, 1}, {1, 8, 1},  {0, 3, 3},
                                          {1, 7, 1},  {0, 6, 1},  {0, -1, 0}, {1, -1, 0}};
    expect(queue, taken, sizeof(taken) / sizeof(taken[0]));
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
    int unit, n;
    while ((unit = share_queue_take(&count->queue, thread_index, &n)) >= 0) {
        for (int i = 0; i < n; i++)
            atomic_fetch_add(&count->times[unit + i], 1);
        assert_int_equal(unit / count->queue.item_units, (unit + n - 1) / count->queue.item_units);
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
        int item_units = 1 + round / 6 % 4, n = sizes[round % 6] / item_units * item_units;
        memset(count->times, 0, sizeof(count->times));
        share_queue_init(&count->queue, n / item_units, item_units, 4);
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
        cmocka_unit_test(test_own_items_are_whole_but_for_the_last),
        cmocka_unit_test(test_every_unit_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
