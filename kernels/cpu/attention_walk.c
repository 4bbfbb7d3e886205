/*
 * attention_walk.c - units by cost, operands by address.
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
            if (middle >= w->to || (place->n_heads && place->n_heads >= heads_max))
                break;
            if (middle < w->from)
                continue;
            if (!place->n_heads++)
                place->kv_head = w->kv_head;
        }
        int ended = w->passed + cost / 2 >= w->to;
        if (w->kv_head == shape->n_kv_heads)
            next_rows(w);
        if (place->n_heads)
            return 1;
        if (ended)
            return 0;
    }
    return 0;
}

void operand_walk_begin(struct operand_walk *walk, const struct unit_walk *units)
{
    *walk = (struct operand_walk){.units = *units};
}

static int n_panels(int head_dim)
{
    return (kv_value_groups(head_dim) + KV_PANEL_GROUPS - 1) / KV_PANEL_GROUPS;
}

/* Panel, head, block, keys and values, split: the fastest first. */
static void step(struct operand_walk *w, int n_blocks)
{
    if (w->values && ++w->panel < n_panels(w->units.l->shape->head_dim))
        return;
    w->panel = 0;
    if (++w->head < w->place.n_heads)
        return;
    w->head = 0;
    if (++w->block < n_blocks)
        return;
    w->block = 0;
    w->values = !w->values;
    if (w->values)
        return;
    w->split += KV_SPLIT_TOKENS;
    if (w->split >= w->n_positions)
        w->n_positions = 0;
}

size_t operand_walk_next(struct operand_walk *w, const char **address)
{
    const struct attention_shape *shape = w->units.l->shape;
    const int d = shape->head_dim;
    if (!w->n_positions) {
        if (!unit_walk_next(&w->units, &w->place))
            return 0;
        w->n_positions = w->place.segment->start + w->place.first + w->place.n_rows;
        w->split = 0;
    }
    int n = min_int(w->n_positions - w->split, KV_SPLIT_TOKENS);
    int left = min_int(n - w->block * KV_BLOCK_TOKENS, KV_BLOCK_TOKENS);
    int32_t block = w->place.segment->blocks[w->split / KV_BLOCK_TOKENS + w->block];
    int head = w->place.kv_head + w->head;
    size_t words;
    if (w->values) {
        *address = (const char *)((bf16 *)kv_values_at(w->units.l->kv, shape, block, head) +
                                  kv_panel_offset(w->panel));
        words = (size_t)(left + 1) / 2 * (size_t)kv_panel_groups(d, w->panel) * KV_PAIR_WORDS;
    } else {
        *address = kv_keys_at(w->units.l->kv, shape, block, head);
        words = (size_t)(left + KV_GROUP - 1) / KV_GROUP * kv_key_group_stride(d);
    }
    step(w, (n + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
    return words * sizeof(bf16);
}
