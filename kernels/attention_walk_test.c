/*
 * attention_walk_test.c - goal: whatever the segments, heads and threads, the units of all threads
 * together cover every row and kv head once, and none has more query vectors than there is room
 * for.
 */
#include "kernels/test_tools.h"

#include "kernels/cpu/attention_walk.h"

enum { SEGMENTS_MAX = 6, ROWS_MAX = 120, HEADS_MAX = 9 };

struct coverage {
    uint8_t seen[SEGMENTS_MAX][ROWS_MAX][HEADS_MAX];
};

static void cover(struct coverage *c, const struct attention_launch *l, int queries_max, int thread,
                  int n_threads)
{
    struct unit_walk walk;
    struct unit_place place;
    int group = l->shape->n_heads / l->shape->n_kv_heads;
    unit_walk_begin(&walk, l, queries_max, thread, n_threads);
    while (unit_walk_next(&walk, &place)) {
        assert_in_range(place.n_rows, 1, place.segment->n_rows - place.first);
        assert_in_range(place.n_heads, 1, l->shape->n_kv_heads - place.kv_head);
        assert_true(place.n_rows * place.n_heads * group <= queries_max);
        for (int r = 0; r < place.n_rows; r++)
            for (int h = 0; h < place.n_heads; h++)
                c->seen[place.segment - l->segments][place.first + r][place.kv_head + h]++;
    }
    assert_int_equal(unit_walk_next(&walk, &place), 0);
}

static void test_units_cover_everything_once(void **state)
{
    (void)state;
    uint64_t seed = 91;
    for (int round = 0; round < 3000; round++) {
        int kv_heads = 1 + (int)(test_random(&seed) % HEADS_MAX);
        int group = 1 + (int)(test_random(&seed) % 4),
            n_threads = 1 + (int)(test_random(&seed) % 7);
        struct attention_shape shape = {kv_heads * group, kv_heads, 16, DTYPE_BF16};
        struct kv_segment segments[SEGMENTS_MAX];
        int n_segments = 1 + (int)(test_random(&seed) % SEGMENTS_MAX), first_row = 0;
        for (int i = 0; i < n_segments; i++) {
            int n_rows = test_random(&seed) % 2 ? 1 : 1 + (int)(test_random(&seed) % ROWS_MAX);
            segments[i] =
                (struct kv_segment){NULL, (int)(test_random(&seed) % 700), n_rows, first_row};
            first_row += n_rows;
        }
        struct attention_launch l = {
            .shape = &shape, .segments = segments, .n_segments = n_segments};
        struct coverage *c = calloc(1, sizeof(*c));
        int queries_max = group > 48 ? group : 48;
        for (int thread = 0; thread < n_threads; thread++)
            cover(c, &l, queries_max, thread, n_threads);
        for (int i = 0; i < n_segments; i++)
            for (int r = 0; r < segments[i].n_rows; r++)
                for (int h = 0; h < kv_heads; h++)
                    assert_int_equal(c->seen[i][r][h], 1);
        free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_units_cover_everything_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
