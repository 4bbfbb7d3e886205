/*
 * attention_walk_test.c - goal: whatever the segments, heads and threads, and whoever is slow, the
 * units of all threads together cover every row and kv head once, none has more query vectors than
 * there is room for, and what a walk says comes behind does.
 */
#include "kernels/test_tools.h"

#include "kernels/cpu/attention_walk.h"

enum { SEGMENTS_MAX = 40, ROWS_MAX = 120, HEADS_MAX = 9, THREADS_MAX = 7 };

struct coverage {
    uint8_t seen[SEGMENTS_MAX][ROWS_MAX][HEADS_MAX];
};

static void cover(struct coverage *c, const struct attention_launch *l, int queries_max,
                  const struct unit_place *place)
{
    int group = l->shape->n_heads / l->shape->n_kv_heads;
    assert_in_range(place->n_rows, 1, place->segment->n_rows - place->first);
    assert_in_range(place->n_heads, 1, l->shape->n_kv_heads - place->kv_head);
    assert_true(place->n_rows * place->n_heads * group <= queries_max);
    for (int r = 0; r < place->n_rows; r++)
        for (int h = 0; h < place->n_heads; h++)
            c->seen[place->segment - l->segments][place->first + r][place->kv_head + h]++;
}

/* What a walk says comes behind its unit does. */
static void check_peek(const struct unit_walk *walk, const struct attention_launch *l,
                       const struct unit_place *place)
{
    struct unit_place behind;
    int head = place->kv_head + place->n_heads, in_row = head < l->shape->n_kv_heads;
    int in_segment = in_row || place->first + place->n_rows < place->segment->n_rows;
    const struct kv_segment *next = place->segment + !in_segment;
    assert_int_equal(unit_walk_peek(walk, &behind), next < l->segments + l->n_segments);
    if (next == l->segments + l->n_segments)
        return;
    assert_ptr_equal(behind.segment, next);
    assert_int_equal(behind.kv_head, in_row ? head : 0);
}

/* Threads take units in any order, one of them more rarely, until none has any. */
static void walk_all(struct coverage *c, const struct attention_launch *l, int queries_max,
                     int n_threads, uint64_t *seed)
{
    static struct unit_slices slices;
    struct unit_walk walks[THREADS_MAX];
    struct unit_place place;
    int done[THREADS_MAX] = {0};
    unit_slices_init(&slices, l, queries_max, n_threads);
    for (int t = 0; t < n_threads; t++)
        unit_walk_begin(&walks[t], &slices, t);
    const uint64_t slow = test_random(seed) % (uint64_t)n_threads,
                   rarely = 1 + test_random(seed) % 9;
    for (int n_done = 0; n_done < n_threads;) {
        uint64_t t = test_random(seed) % (uint64_t)n_threads;
        if (t == slow && test_random(seed) % rarely)
            continue;
        if (unit_walk_next(&walks[t], &place)) {
            assert_int_equal(done[t], 0);
            cover(c, l, queries_max, &place);
            check_peek(&walks[t], l, &place);
        } else if (!done[t]) {
            done[t] = 1;
            n_done++;
        }
    }
}

static void test_units_cover_everything_once(void **state)
{
    (void)state;
    uint64_t seed = 91;
    for (int round = 0; round < 3000; round++) {
        int kv_heads = 1 + (int)(test_random(&seed) % HEADS_MAX);
        int group = 1 + (int)(test_random(&seed) % 4),
            n_threads = 1 + (int)(test_random(&seed) % THREADS_MAX);
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
        walk_all(c, &l, queries_max, n_threads, &seed);
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
