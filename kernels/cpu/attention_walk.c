/*
 * attention_walk.c - units by cost.
 */
#include "kernels/cpu/attention_walk.h"

#include "kernels/kv_layout.h"

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

void unit_walk_begin(struct unit_walk *walk, const struct attention_launch *l, int queries_max,
                     int thread_index, int n_threads)
{
    int group = l->shape->n_heads / l->shape->n_kv_heads;
    int rows = queries_max > group ? queries_max / group : 1;
    *walk = (struct unit_walk){.l = l, .queries_max = queries_max, .rows_a_unit = rows};
    int64_t cost = 0;
    for (int i = 0; i < l->n_segments; i++)
        for (int first = 0; first < l->segments[i].n_rows; first += rows)
            cost +=
                head_cost(&l->segments[i], first, min_int(rows, l->segments[i].n_rows - first)) *
                l->shape->n_kv_heads;
    stream_share(cost, thread_index, n_threads, &walk->from, &walk->to);
}

static void next_rows(struct unit_walk *w)
{
    w->kv_head = 0;
    w->first += w->rows_a_unit;
    if (w->first >= w->l->segments[w->segment].n_rows) {
        w->first = 0;
        w->segment++;
    }
}

int unit_walk_next(struct unit_walk *w, struct unit_place *place)
{
    const struct attention_shape *shape = w->l->shape;
    int group = shape->n_heads / shape->n_kv_heads;
    while (w->segment < w->l->n_segments) {
        const struct kv_segment *s = &w->l->segments[w->segment];
        int n_rows = min_int(w->rows_a_unit, s->n_rows - w->first),
            heads_max = w->queries_max / (n_rows * group);
        int64_t cost = head_cost(s, w->first, n_rows);
        *place = (struct unit_place){s, w->first, n_rows, 0, 0};
        for (; w->kv_head < shape->n_kv_heads; w->kv_head++, w->passed += cost) {
            int64_t middle = w->passed + cost / 2;
            if (middle >= w->to)
                return place->n_heads > 0;
            if (place->n_heads && place->n_heads >= heads_max)
                return 1;
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
