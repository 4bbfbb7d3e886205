/*
 * attention.c - bf16: scores and weighted sums as tile products straight from the blocks of the cache.
 *
 * A unit of work is a kv head and a few rows of one segment, with all query heads that share it: up to QUERIES vectors,
 * which go through the cache together, split after split:
 *     scores = q k^T (tile products, 64 positions each), exponentials over the split, rounded to bf16,
 *     split values = weights v (tile products in one chain over the split), merged into the unit's totals.
 * Each vector has its own number of valid positions; weights of later ones are exactly zero, and adding zero changes
 * no bit, so the vectors beside it do not matter. A unit fetches the next block while it works on one.
 */
#include <math.h>

#include "kernels/attention_launch.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/vector.h"
#include "kernels/kv_layout.h"

enum { QUERIES = 48 };

/* Work space of a thread, cut out of its scratch. */
struct space {
    bf16 *queries; /* [n_queries_max, head_dim] */
    bf16 *weights; /* [n_queries_max, KV_SPLIT_TOKENS] */
    float *scores; /* [n_queries_max, KV_SPLIT_TOKENS] */
    float *split;  /* [n_queries_max, columns] weighted values of one split */
    float *total;  /* [n_queries_max, columns] of all so far */
    float *largest, *sum;             /* [n_queries_max] of all so far */
    float *split_largest, *split_sum; /* [n_queries_max] */
};

struct unit {
    const struct attention_launch *l;
    const struct kv_segment *segment;
    int kv_head, first, n_rows; /* rows of the segment */
    int n_queries;              /* n_rows * query heads of a kv head: query i is row i / heads, head i % heads */
    int heads, head_dim, columns;
    float scale;
    tile_multiply multiply;
    struct space *space;
};

static int n_queries_max(const struct attention_shape *shape)
{
    int heads = shape->n_heads / shape->n_kv_heads;
    return heads > QUERIES ? heads : QUERIES;
}

static int rows_a_unit(const struct attention_shape *shape)
{
    return n_queries_max(shape) / (shape->n_heads / shape->n_kv_heads);
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
    *s = (struct space){parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], parts[7], parts[8]};
    return total;
}

static void gather_queries(const struct unit *u)
{
    const struct attention_shape *shape = u->l->shape;
    const size_t d = (size_t)u->head_dim, bytes = (size_t)u->heads * d * sizeof(bf16);
    for (int r = 0; r < u->n_rows; r++) {
        size_t row = (size_t)(u->segment->first_row + u->first + r);
        const bf16 *q = (const bf16 *)u->l->qkv + row * qkv_row_numbers(shape) + (size_t)(u->kv_head * u->heads) * d;
        memcpy(u->space->queries + (size_t)(r * u->heads) * d, q, bytes);
    }
}

static const bf16 *keys_at(const struct unit *u, int block_index)
{
    int32_t block = u->segment->blocks[block_index];
    return (const bf16 *)(const void *)kv_head_at(u->l->kv, u->l->shape, block, u->kv_head);
}

static const bf16 *values_at(const struct unit *u, int block_index)
{
    return keys_at(u, block_index) + (size_t)KV_BLOCK_TOKENS * (size_t)u->head_dim;
}

/* The n positions from `first` on, a multiple of the split. */
static void split_scores(const struct unit *u, int first, int n)
{
    for (int j = 0; j < n; j += KV_BLOCK_TOKENS) {
        int block = (first + j) / KV_BLOCK_TOKENS;
        int left = n - j < KV_BLOCK_TOKENS ? n - j : KV_BLOCK_TOKENS;
        int last = j + KV_BLOCK_TOKENS >= n;
        struct tile_product p = {
            .acc = u->space->scores + j,
            .ld_acc = KV_SPLIT_TOKENS,
            .a = u->space->queries,
            .ld_a = (size_t)u->head_dim,
            .b = keys_at(u, block),
            .group_stride = kv_key_group_stride(u->head_dim),
            .pair_stride = TILE_PAIR,
            .n_rows = u->n_queries,
            .n_groups = (left + TILE_GROUP - 1) / TILE_GROUP,
            .n_pairs = u->head_dim / 2,
            .prefetch = (const char *)(last ? values_at(u, first / KV_BLOCK_TOKENS) : keys_at(u, block + 1)),
            .prefetch_bytes = (size_t)KV_BLOCK_TOKENS * (size_t)u->head_dim * sizeof(bf16)};
        u->multiply(&p);
    }
}

/* next: memory to fetch during the last block. */
static void split_values(const struct unit *u, int first, int n, const void *next)
{
    for (int j = 0; j < n; j += KV_BLOCK_TOKENS) {
        int block = (first + j) / KV_BLOCK_TOKENS;
        int left = n - j < KV_BLOCK_TOKENS ? n - j : KV_BLOCK_TOKENS;
        int last = j + KV_BLOCK_TOKENS >= n;
        const bf16 *values = values_at(u, block);
        const char *prefetch = last ? next : values_at(u, block + 1);
        for (int column = 0; column < u->columns; column += TILE_COLUMNS) {
            int groups = (u->columns - column) / TILE_GROUP;
            struct tile_product p = {.acc = u->space->split + column,
                                     .ld_acc = (size_t)u->columns,
                                     .a = u->space->weights + j,
                                     .ld_a = KV_SPLIT_TOKENS,
                                     .b = values + (size_t)(column / TILE_GROUP) * KV_VALUE_GROUP_STRIDE,
                                     .group_stride = KV_VALUE_GROUP_STRIDE,
                                     .pair_stride = TILE_PAIR,
                                     .n_rows = u->n_queries,
                                     .n_groups = groups < TILE_GROUPS_MAX ? groups : TILE_GROUPS_MAX,
                                     .n_pairs = (left + 1) / 2,
                                     .resume = j > 0};
            p.prefetch_bytes = (size_t)p.n_groups * KV_VALUE_GROUP_STRIDE * sizeof(bf16);
            p.prefetch = prefetch;
            prefetch = prefetch ? prefetch + p.prefetch_bytes : NULL;
            if (!prefetch)
                p.prefetch_bytes = 0;
            u->multiply(&p);
        }
    }
}

/* Scores to weights for one query with n_valid of the n positions; n_valid may be 0 or less: nothing is valid. */
VECTOR_INLINE void weigh(const struct unit *u, int query, int n, int n_valid)
{
    static const int32_t lane_numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const float *scores = u->space->scores + (size_t)query * KV_SPLIT_TOKENS;
    bf16 *weights = u->space->weights + (size_t)query * KV_SPLIT_TOKENS;
    i32x16 lanes;
    memcpy(&lanes, lane_numbers, sizeof(lanes));
    f32x16 largest = (f32x16){0} - INFINITY, sum = {0};
    for (int j = 0; j < n_valid; j += LANES) {
        f32x16 s = select_lanes(lanes < n_valid - j, load_f32(scores + j), (f32x16){0} - INFINITY);
        largest = max_lanes(largest, s);
    }
    float top = largest_lane(largest) * u->scale;
    for (int j = 0; j < n; j += LANES) {
        f32x16 e = exp_lanes(load_f32(scores + j) * u->scale - top);
        e = select_lanes(lanes < n_valid - j, e, (f32x16){0});
        u16x16 rounded = round_bf16(e);
        memcpy(weights + j, &rounded, sizeof(rounded));
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
    float largest = s->largest[query] > s->split_largest[query] ? s->largest[query] : s->split_largest[query];
    float a = exp_one(s->largest[query] - largest), b = exp_one(s->split_largest[query] - largest);
    s->largest[query] = largest;
    s->sum[query] = s->sum[query] * a + s->split_sum[query] * b;
    for (int i = 0; i < u->columns; i += LANES)
        store_f32(total + i, load_f32(total + i) * a + load_f32(split + i) * b);
}

VECTOR_INLINE void finish(const struct unit *u, int query)
{
    const struct attention_shape *shape = u->l->shape;
    size_t row = (size_t)(u->segment->first_row + u->first + query / u->heads);
    size_t head = (size_t)(u->kv_head * u->heads + query % u->heads);
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
    int n_positions = u->segment->start + u->first + u->n_rows;
    for (int first = 0; first < n_positions; first += KV_SPLIT_TOKENS) {
        int n = n_positions - first < KV_SPLIT_TOKENS ? n_positions - first : KV_SPLIT_TOKENS;
        int next = (first + KV_SPLIT_TOKENS) / KV_BLOCK_TOKENS;
        split_scores(u, first, n);
        for (int q = 0; q < u->n_queries; q++) {
            int n_valid = u->segment->start + u->first + q / u->heads + 1 - first;
            weigh(u, q, n, n_valid < n ? n_valid : n);
        }
        split_values(u, first, n, first + n < n_positions ? keys_at(u, next) : NULL);
        for (int q = 0; q < u->n_queries; q++)
            if (u->segment->start + u->first + q / u->heads + 1 > first)
                merge(u, q, first == 0);
    }
    for (int q = 0; q < u->n_queries; q++)
        finish(u, q);
}
FOR_EACH_PATH(attend, (const struct unit *u), (u))

struct task {
    const struct attention_launch *l;
    struct stream *stream;
    int failed; /* written by any thread that finds no memory */
};

/* What a unit costs: its rows times the positions they see, and something for its start. */
static int64_t unit_cost(const struct kv_segment *s, int first, int n_rows)
{
    return (int64_t)n_rows * (s->start + first + n_rows + 16);
}

static int64_t all_costs(const struct attention_launch *l, int rows)
{
    int64_t cost = 0;
    for (int i = 0; i < l->n_segments; i++)
        for (int first = 0; first < l->segments[i].n_rows; first += rows) {
            int left = l->segments[i].n_rows - first;
            cost += unit_cost(&l->segments[i], first, left < rows ? left : rows) * l->shape->n_kv_heads;
        }
    return cost;
}

/* A thread takes the units whose middle lies in its share of the cost, counted through all units in order. */
static void attend_share(void *context, int thread_index, int n_threads)
{
    struct task *task = context;
    const struct attention_launch *l = task->l;
    const struct attention_shape *shape = l->shape;
    struct space space;
    char *scratch = stream_scratch(task->stream, thread_index, lay_out(&space, NULL, shape));
    if (!scratch) {
        __atomic_store_n(&task->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    lay_out(&space, scratch, shape);
    enum code_path path = stream_code_path(task->stream);
    attend_function attend = attend_of(path);
    int rows = rows_a_unit(shape);
    int64_t from, to, passed = 0;
    stream_share(all_costs(l, rows), thread_index, n_threads, &from, &to);
    struct unit u = {.l = l,
                     .heads = shape->n_heads / shape->n_kv_heads,
                     .head_dim = shape->head_dim,
                     .columns = kv_value_groups(shape->head_dim) * KV_GROUP,
                     .scale = 1.0f / sqrtf((float)shape->head_dim),
                     .multiply = tile_multiply_any_of(path),
                     .space = &space};
    for (int i = 0; i < l->n_segments; i++)
        for (u.first = 0; u.first < l->segments[i].n_rows; u.first += rows) {
            u.segment = &l->segments[i];
            u.n_rows = u.segment->n_rows - u.first < rows ? u.segment->n_rows - u.first : rows;
            u.n_queries = u.n_rows * u.heads;
            int64_t cost = unit_cost(u.segment, u.first, u.n_rows);
            for (u.kv_head = 0; u.kv_head < shape->n_kv_heads; u.kv_head++, passed += cost)
                if (passed + cost / 2 >= from && passed + cost / 2 < to)
                    attend(&u);
        }
}

enum status attention_cpu(const struct attention_launch *launch, struct stream *stream)
{
    struct task task = {launch, stream, 0};
    stream_parallel(stream, attend_share, &task);
    return task.failed ? STATUS_NOMEM : STATUS_OK;
}
