/*
 * attention_walk.c - units by cost.
 */
#include "kernels/cpu/attention_walk.h"

#include "kernels/kv_layout.h"

/* Heads of one row are read several at a time (tile_products_abreast()): a slice has as many. With
 * fewer than SLICES_LEAST a thread there is nothing to take from others, and shares are whole. */
enum { HEADS_A_SLICE = 4, SLICES_A_THREAD = 16, SLICES_AN_ITEM = 4, SLICES_LEAST = 4 };

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* What some rows cost in one kv head: their number times the positions they see, and something for
 * the start. */
static int64_t head_cost(const struct kv_segment *s, int first, int n_rows)
{
    return (int64_t)n_rows * (s->start + first + n_rows + KV_GROUP);
}

static int group_of(const struct attention_shape *shape)
{
    return shape->n_heads / shape->n_kv_heads;
}

int unit_rows(const struct attention_shape *shape, int queries_max)
{
    const int group = group_of(shape);
    return queries_max > group ? queries_max / group : 1;
}

void unit_slices_init(struct unit_slices *slices, const struct attention_launch *l, int queries_max,
                      int n_threads)
{
    const int n_kv_heads = l->shape->n_kv_heads;
    int64_t n_heads = 0;
    slices->l = l;
    slices->queries_max = queries_max;
    slices->rows_a_unit = unit_rows(l->shape, queries_max);
    slices->cost = 0;
    for (int i = 0; i < l->n_segments; i++) {
        const struct kv_segment *s = &l->segments[i];
        for (int first = 0; first < s->n_rows; first += slices->rows_a_unit) {
            int n_rows = min_int(slices->rows_a_unit, s->n_rows - first);
            slices->cost += head_cost(s, first, n_rows) * n_kv_heads;
            n_heads += n_kv_heads;
        }
    }
    const int most = n_threads * SLICES_A_THREAD;
    slices->n = n_heads / HEADS_A_SLICE < most ? (int)(n_heads / HEADS_A_SLICE) : most;
    if (n_threads == 1 || slices->n < n_threads * SLICES_LEAST)
        slices->n = n_threads;
    int item_slices = slices->n == most ? SLICES_AN_ITEM : 1;
    share_queue_init(&slices->queue, slices->n / item_slices, item_slices, n_threads);
}

void unit_walk_begin(struct unit_walk *walk, struct unit_slices *slices, int thread_index)
{
    *walk = (struct unit_walk){.slices = slices, .thread_index = thread_index, .last_middle = -1};
}

static int take_slices(struct unit_walk *w)
{
    struct unit_slices *slices = w->slices;
    int n, first = share_queue_take(&slices->queue, w->thread_index, &n);
    int64_t unused;
    if (first < 0)
        return 0;
    stream_share(slices->cost, first, slices->n, &w->from, &unused);
    stream_share(slices->cost, first + n - 1, slices->n, &unused, &w->to);
    if (w->from <= w->last_middle) { /* another's, that lie before what was ours */
        w->segment = w->first = w->kv_head = 0;
        w->passed = 0;
        w->last_middle = -1;
    }
    return 1;
}

static void next_rows(struct unit_walk *w)
{
    w->kv_head = 0;
    w->first += w->slices->rows_a_unit;
    if (w->first >= w->slices->l->segments[w->segment].n_rows) {
        w->first = 0;
        w->segment++;
    }
}

static void pass_heads(struct unit_walk *w, int n, int64_t cost)
{
    w->passed += n * cost;
    w->last_middle = w->passed - cost + cost / 2;
    w->kv_head += n;
}

/* 0: none is left in the slices under way. */
static int next_of_slices(struct unit_walk *w, struct unit_place *place)
{
    const struct unit_slices *slices = w->slices;
    const struct attention_launch *l = slices->l;
    const int n_kv_heads = l->shape->n_kv_heads, group = group_of(l->shape);
    while (w->segment < l->n_segments) {
        const struct kv_segment *s = &l->segments[w->segment];
        int n_rows = min_int(slices->rows_a_unit, s->n_rows - w->first),
            heads_max = slices->queries_max / (n_rows * group);
        int64_t cost = head_cost(s, w->first, n_rows);
        *place = (struct unit_place){s, w->first, n_rows, 0, 0};
        if (w->passed + (n_kv_heads - w->kv_head) * cost <= w->from)
            pass_heads(w, n_kv_heads - w->kv_head, cost);
        for (; w->kv_head < n_kv_heads; pass_heads(w, 1, cost)) {
            int64_t middle = w->passed + cost / 2;
            if (middle >= w->to || place->n_heads == heads_max)
                return place->n_heads > 0;
            if (middle < w->from)
                continue;
            if (!place->n_heads++)
                place->kv_head = w->kv_head;
        }
        next_rows(w);
        if (place->n_heads)
            return 1;
    }
    return 0;
}

int unit_walk_next(struct unit_walk *walk, struct unit_place *place)
{
    while (!next_of_slices(walk, place))
        if (!take_slices(walk))
            return 0;
    return 1;
}

int unit_walk_peek(const struct unit_walk *walk, struct unit_place *place)
{
    const struct attention_launch *l = walk->slices->l;
    if (walk->segment >= l->n_segments)
        return 0;
    *place = (struct unit_place){
        .segment = &l->segments[walk->segment], .first = walk->first, .kv_head = walk->kv_head};
    return 1;
}
