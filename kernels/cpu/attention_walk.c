/*
 * attention_walk.c - units by cost, operands by address.
 */
#include "kernels/cpu/attention_walk.h"

#include "kernels/kv_layout.h"

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* What a unit costs: its rows times the positions they see, and something for its start. */
static int64_t unit_cost(const struct kv_segment *s, int first, int n_rows)
{
    return (int64_t)n_rows * (s->start + first + n_rows + KV_GROUP);
}

void unit_walk_begin(struct unit_walk *walk, const struct attention_launch *l, int rows_a_unit, int thread_index,
                     int n_threads)
{
    *walk = (struct unit_walk){.l = l, .rows_a_unit = rows_a_unit};
    int64_t cost = 0;
    for (int i = 0; i < l->n_segments; i++)
        for (int first = 0; first < l->segments[i].n_rows; first += rows_a_unit)
            cost += unit_cost(&l->segments[i], first, min_int(rows_a_unit, l->segments[i].n_rows - first)) *
                    l->shape->n_kv_heads;
    stream_share(cost, thread_index, n_threads, &walk->from, &walk->to);
}

int unit_walk_next(struct unit_walk *w, struct unit_place *place)
{
    while (w->segment < w->l->n_segments) {
        const struct kv_segment *s = &w->l->segments[w->segment];
        int n_rows = min_int(w->rows_a_unit, s->n_rows - w->first);
        int64_t cost = unit_cost(s, w->first, n_rows), middle = w->passed + cost / 2;
        if (middle >= w->to)
            return 0;
        *place = (struct unit_place){s, w->first, n_rows, w->kv_head};
        w->passed += cost;
        if (++w->kv_head == w->l->shape->n_kv_heads) {
            w->kv_head = 0;
            w->first += w->rows_a_unit;
            if (w->first >= s->n_rows) {
                w->first = 0;
                w->segment++;
            }
        }
        if (middle >= w->from)
            return 1;
    }
    return 0;
}

void operand_walk_begin(struct operand_walk *walk, const struct unit_walk *units)
{
    *walk = (struct operand_walk){.units = *units};
}

size_t operand_walk_next(struct operand_walk *w, const char **address)
{
    const struct attention_shape *shape = w->units.l->shape;
    const int d = shape->head_dim, panels = (kv_value_groups(d) + KV_PANEL_GROUPS - 1) / KV_PANEL_GROUPS;
    if (!w->n_positions) {
        if (!unit_walk_next(&w->units, &w->place))
            return 0;
        w->n_positions = w->place.segment->start + w->place.first + w->place.n_rows;
        w->split = w->operand = 0;
    }
    int n = min_int(w->n_positions - w->split, KV_SPLIT_TOKENS);
    int n_blocks = (n + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    int is_key = w->operand < n_blocks;
    int block = is_key ? w->operand : (w->operand - n_blocks) / panels, panel = is_key ? 0 : (w->operand - n_blocks) % panels;
    int left = min_int(n - block * KV_BLOCK_TOKENS, KV_BLOCK_TOKENS);
    int32_t id = w->place.segment->blocks[w->split / KV_BLOCK_TOKENS + block];
    const char *keys = kv_head_at(w->units.l->kv, shape, id, w->place.kv_head);
    size_t words = is_key ? (size_t)(left + KV_GROUP - 1) / KV_GROUP * kv_key_group_stride(d)
                          : (size_t)(left + 1) / 2 * (size_t)kv_panel_groups(d, panel) * KV_PAIR_WORDS;
    *address = is_key ? keys : keys + kv_key_bytes(shape) + kv_panel_offset(panel) * sizeof(bf16);
    if (++w->operand == n_blocks * (1 + panels)) {
        w->operand = 0;
        w->split += KV_SPLIT_TOKENS;
        if (w->split >= w->n_positions)
            w->n_positions = 0;
    }
    return words * sizeof(bf16);
}
