/*
 * attention.c - bf16: scores and weighted sums as tile products straight from the blocks of the
 * cache.
 *
 * A unit of work is some kv heads and some rows of one segment, with all query heads that belong to
 * them: up to QUERIES vectors, which go through the cache together, split after split: scores = q
 * k^T (tile products, 64 positions each), exponentials over the split, rounded to bf16, split
 * values = weights v (tile products in one chain over the split), merged into the unit's totals.
 * Each vector has its own number of valid positions; weights of later ones are exactly zero, and
 * adding zero changes no bit, so the vectors beside it do not matter. While it works on one operand
 * a thread fetches the one behind it, across the borders of splits and units.
 *
 * A unit that has all rows of its segment stores their keys and values first, of its heads.
 */
#include <math.h>

#include "kernels/cpu/attention_walk.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/vector.h"
#include "kernels/kv_layout.h"

enum { QUERIES = 48 };

_Static_assert((int)KV_STRIP_PAIRS == TILE_STRIP_PAIRS && (int)KV_STRIPS <= TILE_STRIPS_MAX,
               "a block's values are the strips of a product");

/* Work space of a thread, cut out of its scratch. */
struct space {
    bf16 *queries;                    /* [n_queries_max, head_dim] */
    bf16 *weights;                    /* [n_queries_max, KV_SPLIT_TOKENS] */
    float *scores;                    /* [n_queries_max, KV_SPLIT_TOKENS] */
    float *split;                     /* [n_queries_max, columns] weighted values of one split */
    float *total;                     /* [n_queries_max, columns] of all so far */
    float *largest, *sum;             /* [n_queries_max] of all so far */
    float *split_largest, *split_sum; /* [n_queries_max] */
};

struct unit {
    const struct attention_launch *l;
    struct unit_place place;
    int group;     /* query heads of a kv head */
    int a_head;    /* query vectors of a kv head: rows * group, row after row */
    int n_queries; /* of all kv heads of the unit, head after head */
    int head_dim, columns;
    float scale;
    tile_multiply multiply;
    struct space *space;
    const bf16 *next_keys; /* where the unit behind this one begins, or NULL */
};

static int n_queries_max(const struct attention_shape *shape)
{
    int group = shape->n_heads / shape->n_kv_heads;
    return group > QUERIES ? group : QUERIES;
}

bool attention_cpu_stores(const struct attention_shape *shape, const struct kv_segment *segment)
{
    return segment->n_rows <= unit_rows(shape, n_queries_max(shape));
}

static size_t take(char **at, size_t bytes)
{
    size_t rounded = (bytes + 63) & ~(size_t)63;
    *at += rounded;
    return rounded;
}

/* Lays the space out at `base` and returns its bytes; base NULL only counts. */
static size_t lay_out(struct space *s, char *base, const struct attention_shape *shape)
{
    size_t n = (size_t)n_queries_max(shape), d = (size_t)shape->head_dim;
    size_t columns = (size_t)kv_value_groups(shape->head_dim) * KV_GROUP;
    size_t bytes[] = {n * d * sizeof(bf16),
                      n * KV_SPLIT_TOKENS * sizeof(bf16),
                      n * KV_SPLIT_TOKENS * sizeof(float),
                      n * columns * sizeof(float),
                      n * columns * sizeof(float),
                      n * sizeof(float),
                      n * sizeof(float),
                      n * sizeof(float),
                      n * sizeof(float)};
    void *parts[sizeof(bytes) / sizeof(bytes[0])];
    char *at = base;
    size_t total = 0;
    for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        parts[i] = at;
        total += take(&at, bytes[i]);
    }
    *s = (struct space){parts[0], parts[1], parts[2], parts[3], parts[4],
                        parts[5], parts[6], parts[7], parts[8]};
    return total;
}

static void gather_queries(const struct unit *u)
{
    const struct attention_shape *shape = u->l->shape;
    const size_t d = (size_t)u->head_dim, group_bytes = (size_t)u->group * d * sizeof(bf16);
    bf16 *to = u->space->queries;
    for (int h = 0; h < u->place.n_heads; h++)
        for (int r = 0; r < u->place.n_rows; r++, to += (size_t)u->group * d) {
            size_t row = (size_t)(u->place.segment->first_row + u->place.first + r);
            size_t head = (size_t)((u->place.kv_head + h) * u->group);
            memcpy(to, (const bf16 *)u->l->qkv + row * qkv_row_numbers(shape) + head * d,
                   group_bytes);
        }
}

/* Where the operands of the n positions from `at` of the split lie; panel -1: keys. */
static const bf16 *operand_at(const struct unit *u, int first, int at, int panel)
{
    const struct attention_shape *shape = u->l->shape;
    bf16 *strip = kv_strip_at(u->l->kv, shape, u->place.segment->blocks, first + at);
    return panel < 0 ? kv_strip_keys(strip, shape, u->place.kv_head)
                     : kv_strip_panel(strip, shape, u->place.kv_head, panel);
}

/* Scores of the n positions from `first` on, block after block, in each the heads of the unit. */
static void split_scores(const struct unit *u, int first, int n)
{
    for (int at = 0; at < n; at += KV_BLOCK_TOKENS) {
        int left = n - at < KV_BLOCK_TOKENS ? n - at : KV_BLOCK_TOKENS;
        int last = at + KV_BLOCK_TOKENS >= n;
        struct tile_product p = {.acc = u->space->scores + at,
                                 .ld_acc = KV_SPLIT_TOKENS,
                                 .a = u->space->queries,
                                 .ld_a = (size_t)u->head_dim,
                                 .b = operand_at(u, first, at, -1),
                                 .group_stride = kv_strip_words(u->l->shape),
                                 .pair_stride = TILE_PAIR,
                                 .n_rows = u->a_head,
                                 .n_groups = (left + TILE_GROUP - 1) / TILE_GROUP,
                                 .n_pairs = u->head_dim / 2,
                                 .n_products = u->place.n_heads,
                                 .acc_step = (size_t)u->a_head * KV_SPLIT_TOKENS,
                                 .a_step = (size_t)u->a_head * (size_t)u->head_dim,
                                 .b_step = kv_strip_key_words(u->l->shape),
                                 .next = last ? operand_at(u, first, 0, 0)
                                              : operand_at(u, first, at + KV_BLOCK_TOKENS, -1)};
        u->multiply(&p);
    }
}

/* One panel of values; next: what is read after it. */
static void panel_values(const struct unit *u, int first, int n, int panel, const bf16 *next)
{
    int groups = kv_panel_groups(u->head_dim, panel);
    for (int at = 0; at < n; at += KV_BLOCK_TOKENS) {
        int left = n - at < KV_BLOCK_TOKENS ? n - at : KV_BLOCK_TOKENS;
        int last = at + KV_BLOCK_TOKENS >= n;
        struct tile_product p = {.acc = u->space->split + panel * KV_PANEL_COLUMNS,
                                 .ld_acc = (size_t)u->columns,
                                 .a = u->space->weights + at,
                                 .ld_a = KV_SPLIT_TOKENS,
                                 .b = operand_at(u, first, at, panel),
                                 .group_stride = TILE_PAIR,
                                 .pair_stride = (size_t)groups * TILE_PAIR,
                                 .n_rows = u->a_head,
                                 .n_groups = groups,
                                 .n_pairs = (left + 1) / 2,
                                 .strip_stride = kv_strip_words(u->l->shape),
                                 .resume = at > 0,
                                 .n_products = u->place.n_heads,
                                 .acc_step = (size_t)u->a_head * (size_t)u->columns,
                                 .a_step = (size_t)u->a_head * KV_SPLIT_TOKENS,
                                 .b_step = kv_panel_words(u->head_dim, panel),
                                 .next = last ? next
                                              : operand_at(u, first, at + KV_BLOCK_TOKENS, panel)};
        u->multiply(&p);
    }
}

static void split_values(const struct unit *u, int first, int n, const bf16 *next)
{
    for (int panel = 0; panel * KV_PANEL_COLUMNS < u->columns; panel++) {
        int last = (panel + 1) * KV_PANEL_COLUMNS >= u->columns;
        panel_values(u, first, n, panel, last ? next : operand_at(u, first, 0, panel + 1));
    }
}

/* Positions that a query sees. */
static int n_seen(const struct unit *u, int query)
{
    return u->place.segment->start + u->place.first + query % u->a_head / u->group + 1;
}

/* Lines that are fetched into the second-level cache, so many with every word of weights: all at
 * once would be waited for. */
struct lines {
    const char *at;
    int n_a_word, n_a_strip;
    int left;    /* of the strip under way, */
    size_t skip; /* then it goes on so many bytes behind */
};

VECTOR_INLINE void fetch_lines(struct lines *lines)
{
    for (int i = 0; i < lines->n_a_word; i++) {
        __builtin_prefetch(lines->at, 0, 2);
        lines->at += KV_PAIR_WORDS * sizeof(bf16);
        if (--lines->left == 0) {
            lines->left = lines->n_a_strip;
            lines->at += lines->skip;
        }
    }
}

/* The values of the split's first block, of one head: memory would idle while scores become
 * weights. */
VECTOR_INLINE struct lines first_values(const struct unit *u, int first, int n, int head)
{
    const size_t words = kv_panel_words(u->head_dim, 0);
    const bf16 *values = operand_at(u, first, 0, 0) + (size_t)head * words;
    const int groups = kv_panel_groups(u->head_dim, 0), n_a_strip = KV_STRIP_PAIRS * groups;
    int n_pairs = ((n < KV_BLOCK_TOKENS ? n : KV_BLOCK_TOKENS) + 1) / 2;
    int n_words = (n + LANES - 1) / LANES;
    return (struct lines){(const char *)values, (n_pairs * groups + n_words - 1) / n_words,
                          n_a_strip, n_a_strip,
                          (kv_strip_words(u->l->shape) - words) * sizeof(bf16)};
}

/* Scores to weights for one query with n_valid of the n positions; n_valid may be 0 or less:
 * nothing is valid. */
VECTOR_INLINE void weigh(const struct unit *u, int query, int n, int n_valid, struct lines fetched)
{
    const float *scores = u->space->scores + (size_t)query * KV_SPLIT_TOKENS;
    bf16 *weights = u->space->weights + (size_t)query * KV_SPLIT_TOKENS;
    f32x16 largest = (f32x16){0} - INFINITY, sum = {0};
    for (int j = 0; j < n_valid; j += LANES) {
        f32x16 s =
            select_lanes(first_lanes(n_valid - j), load_f32(scores + j), (f32x16){0} - INFINITY);
        largest = max_lanes(largest, s);
    }
    float top = largest_lane(largest) * u->scale;
    for (int j = 0; j < n; j += LANES) {
        f32x16 e = exp_lanes(load_f32(scores + j) * u->scale - top);
        e = select_lanes(first_lanes(n_valid - j), e, (f32x16){0});
        u16x16 rounded = round_bf16(e);
        memcpy(weights + j, &rounded, sizeof(rounded));
        fetch_lines(&fetched);
        sum += from_bits(__builtin_convertvector(rounded, u32x16) << 16);
    }
    u->space->split_largest[query] = top;
    u->space->split_sum[query] = sum_lanes(sum);
}

VECTOR_INLINE float exp_one(float x)
{
    float y[LANES];
    store_f32(y, exp_lanes((f32x16){0} + x));
    return y[0];
}

VECTOR_INLINE void merge(const struct unit *u, int query, int first_split)
{
    struct space *s = u->space;
    float *total = s->total + (size_t)query * (size_t)u->columns;
    const float *split = s->split + (size_t)query * (size_t)u->columns;
    if (first_split) {
        memcpy(total, split, (size_t)u->columns * sizeof(float));
        s->largest[query] = s->split_largest[query];
        s->sum[query] = s->split_sum[query];
        return;
    }
    float largest =
        s->largest[query] > s->split_largest[query] ? s->largest[query] : s->split_largest[query];
    float a = exp_one(s->largest[query] - largest), b = exp_one(s->split_largest[query] - largest);
    s->largest[query] = largest;
    s->sum[query] = s->sum[query] * a + s->split_sum[query] * b;
    for (int i = 0; i < u->columns; i += LANES)
        store_f32(total + i, load_f32(total + i) * a + load_f32(split + i) * b);
}

VECTOR_INLINE void finish(const struct unit *u, int query)
{
    const struct attention_shape *shape = u->l->shape;
    size_t row =
        (size_t)(u->place.segment->first_row + u->place.first + query % u->a_head / u->group);
    size_t head = (size_t)((u->place.kv_head + query / u->a_head) * u->group + query % u->group);
    size_t at = (row * (size_t)shape->n_heads + head) * (size_t)u->head_dim;
    const float *total = u->space->total + (size_t)query * (size_t)u->columns;
    float sum = u->space->sum[query];
    for (int i = 0; i < u->head_dim; i += LANES)
        store_lanes(u->l->y, DTYPE_BF16, at + (size_t)i, load_f32(total + i) / sum,
                    u->head_dim - i < LANES ? u->head_dim - i : LANES);
}

VECTOR_INLINE void attend_body(const struct unit *u)
{
    gather_queries(u);
    int n_positions = n_seen(u, u->n_queries - 1);
    for (int first = 0; first < n_positions; first += KV_SPLIT_TOKENS) {
        int n = n_positions - first < KV_SPLIT_TOKENS ? n_positions - first : KV_SPLIT_TOKENS;
        int last = first + n >= n_positions;
        split_scores(u, first, n);
        for (int q = 0; q < u->n_queries; q++) {
            struct lines values = {0};
            if (q % u->a_head == 0)
                values = first_values(u, first, n, q / u->a_head);
            weigh(u, q, n, n_seen(u, q) - first < n ? n_seen(u, q) - first : n, values);
        }
        split_values(u, first, n,
                     last ? u->next_keys : operand_at(u, first + KV_SPLIT_TOKENS, 0, -1));
        for (int q = 0; q < u->n_queries; q++)
            if (n_seen(u, q) > first)
                merge(u, q, first == 0);
    }
    for (int q = 0; q < u->n_queries; q++)
        finish(u, q);
}
FOR_EACH_PATH(attend, (const struct unit *u), (u))

struct task {
    const struct attention_launch *l;
    struct stream *stream;
    struct unit_slices *slices;
    int failed; /* written by any thread that finds no memory */
};

static void store_unit(const struct task *task, const struct unit_place *place)
{
    const struct kv_segment *s = place->segment;
    for (int r = 0; r < s->n_rows; r++) {
        const struct store_row row = store_row_of(s, r);
        store_row_cpu(task->l, &row, place->kv_head, place->n_heads,
                      stream_code_path(task->stream));
    }
}

static void attend_share(void *context, int thread_index, int n_threads)
{
    struct task *task = context;
    const struct attention_shape *shape = task->l->shape;
    struct space space;
    (void)n_threads;
    char *scratch = stream_scratch(task->stream, thread_index, lay_out(&space, NULL, shape));
    if (!scratch) {
        __atomic_store_n(&task->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    lay_out(&space, scratch, shape);
    enum code_path path = stream_code_path(task->stream);
    attend_function attend = attend_of(path);
    struct unit_walk walk;
    unit_walk_begin(&walk, task->slices, thread_index);
    struct unit u = {.l = task->l,
                     .group = shape->n_heads / shape->n_kv_heads,
                     .head_dim = shape->head_dim,
                     .columns = kv_value_groups(shape->head_dim) * KV_GROUP,
                     .scale = 1.0f / sqrtf((float)shape->head_dim),
                     .multiply = tile_multiply_any_of(path),
                     .space = &space};
    struct unit_place next;
    while (unit_walk_next(&walk, &u.place)) {
        u.next_keys = NULL;
        if (unit_walk_peek(&walk, &next))
            u.next_keys = kv_strip_keys(kv_strip_at(u.l->kv, shape, next.segment->blocks, 0), shape,
                                        next.kv_head);
        u.a_head = u.place.n_rows * u.group;
        u.n_queries = u.place.n_heads * u.a_head;
        if (attention_cpu_stores(shape, u.place.segment))
            store_unit(task, &u.place);
        attend(&u);
    }
}

enum status attention_cpu(const struct attention_launch *launch, struct stream *stream)
{
    struct unit_slices slices;
    unit_slices_init(&slices, launch, n_queries_max(launch->shape), stream_n_threads(stream));
    struct task task = {launch, stream, &slices, 0};
    stream_parallel(stream, attend_share, &task);
    return task.failed ? STATUS_NOMEM : STATUS_OK;
}
