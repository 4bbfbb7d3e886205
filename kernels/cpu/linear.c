/*
 * linear.c - the bf16 product: threads take contiguous runs of panels, so each streams its part of
 * the matrix once, and at the end panels of those that are behind, by parts of the rows where there
 * are many.
 *
 * A row or two wait for memory alone: then a thread may read several panels side by side
 * (tile_products_abreast()).
 *
 * Within a panel, but with AMX, which goes through strips of it as it likes, the inputs go in runs
 * of about the first-level cache's size and all rows pass over a run before the next: memory is
 * read once for all rows, and the next run is fetched while this one is used. Up to one tile of
 * rows there is nothing to reuse, and the panel goes in one run.
 */
#include <limits.h>

#include "base/check.h"
#include "kernels/cpu/share_queue.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/vector.h"
#include "kernels/linear_weight.h"

enum {
    ROWS_A_PART = 16,     /* at least, of a panel's rows that a thread does by itself */
    RUN_PAIRS_FEW = 64,   /* 16 KiB of the panel, a part of any layout's run */
    RUN_PAIRS_MANY = 512, /* whole runs of any layout */
    AHEAD_BYTES = 4096,   /* how far ahead a single pass fetches */
};

/* What suits the products of a path. Rows that AVX2 has laid out take twice the room; AMX makes
 * runs of its own. */
static const struct cut {
    int rows_a_pass;      /* rows whose sums (32 KiB) stay in the cache while the panel passes */
    int rows_a_stream;    /* up to here the panel is read once anyway, and goes in one run */
    int rows_a_few;       /* up to here memory is the limit, and short runs keep the reading even */
    int run_pairs;        /* of more rows */
    int rows_past_caches; /* from here on y goes to memory: stream_panel() */
} cuts[CODE_PATH_COUNT] = {
    [CODE_PATH_PORTABLE] = {128, 0, 16, RUN_PAIRS_MANY, INT_MAX},
    [CODE_PATH_AVX2] = {64, 0, 12, RUN_PAIRS_MANY, INT_MAX},
    [CODE_PATH_AVX512BF16] = {128, 6, 16, RUN_PAIRS_MANY, INT_MAX},
    [CODE_PATH_AMX] = {128, 0, 0, INT_MAX, 16},
};

struct task {
    const struct linear_launch *launch;
    struct stream *stream;
    tile_multiply multiply;
    const struct tile_layout *layout; /* NULL: rows are read as they are */
    const struct cut *cut;
    int first_panel, n_panels;
    int n_abreast;             /* panels; 1: each by itself, and: */
    int n_parts;               /* of the rows of a pass */
    struct share_queue *units; /* panels, or parts of a panel, in a pass over rows_a_pass rows, pass
                                  after pass */
    int failed;                /* written by any thread that finds no memory */
};

/* The sums of row r of a group, with the bias of its outputs where there is one. */
VECTOR_INLINE f32x16 group_sums(const float *acc, int r, const float *bias, const int has_bias)
{
    f32x16 v = load_f32(acc + (size_t)r * TILE_COLUMNS);
    return has_bias ? v + load_f32(bias) : v;
}

/* A group that lies in the launch's range, from its output `column` on. */
VECTOR_INLINE void store_group(const struct linear_launch *l, const float *acc, int row, int n_rows,
                               int column, const float *bias, const int has_bias,
                               const enum dtype dtype)
{
    size_t at = (size_t)row * (size_t)l->n_out + (size_t)column;
    for (int r = 0; r < n_rows; r++, at += (size_t)l->n_out)
        store_lanes(l->y, dtype, at, group_sums(acc, r, bias, has_bias), LANES);
}

/* A group of which the range has a part: it begins inside, or ends, or both. */
VECTOR_INLINE void store_group_part(const struct linear_launch *l, const float *acc, int row,
                                    int n_rows, int column, const float *bias)
{
    int first = column < 0 ? -column : 0,
        last = l->n_out - column < LANES ? l->n_out - column : LANES;
    for (int r = 0; r < n_rows; r++) {
        size_t at = (size_t)(row + r) * (size_t)l->n_out;
        float values[LANES];
        if (bias)
            store_f32(values, group_sums(acc, r, bias, 1));
        else
            store_f32(values, group_sums(acc, r, bias, 0));
        for (int i = first; i < last; i++)
            store_lanes(l->y, l->y_dtype, at + (size_t)(column + i), (f32x16){values[i]}, 1);
    }
}

/* Whether the panel whose outputs begin at `column` fills whole lines of y. */
static bool fills_lines(const struct linear_launch *l, int column, int n_groups)
{
    const size_t bytes = dtype_bytes(l->y_dtype);
    return n_groups == TILE_GROUPS_MAX && column >= 0 && column + TILE_COLUMNS <= l->n_out &&
           (size_t)column * bytes % 64 == 0 && (size_t)l->n_out * bytes % 64 == 0 &&
           (uintptr_t)l->y % 64 == 0;
}

/*
 * Such a panel, without bias, to memory. Kept in the caches, the many rows of y, each in a page of
 * its own, disturb what the processor reads ahead by itself, and are pushed out before they are
 * read: with 32 rows and AMX that costs a tenth of the product.
 */
VECTOR_INLINE void stream_panel(const struct linear_launch *l, const float *acc, int row,
                                int n_rows, int column, const enum dtype dtype)
{
    size_t at = (size_t)row * (size_t)l->n_out + (size_t)column;
    for (int r = 0; r < n_rows; r++, at += (size_t)l->n_out, acc += TILE_COLUMNS) {
        _Alignas(64) char lines[TILE_COLUMNS * sizeof(float)];
        for (int g = 0; g < TILE_GROUPS_MAX; g++)
            store_lanes(lines, dtype, (size_t)(g * LANES), load_f32(acc + g * LANES), LANES);
        store_past_caches((char *)l->y + at * dtype_bytes(dtype), lines,
                          TILE_COLUMNS * dtype_bytes(dtype));
    }
}

/* Sums of a panel, of n_rows rows from `row` on, to y; columns outside of the launch's range are
 * dropped. */
VECTOR_INLINE void store_panel_body(const struct linear_launch *l, const float *acc, int row,
                                    int n_rows, int first, int n_groups, int past_caches)
{
    past_caches = past_caches && !l->weight->bias && fills_lines(l, first - l->first_out, n_groups);
    if (past_caches && l->y_dtype == DTYPE_F32) {
        stream_panel(l, acc, row, n_rows, first - l->first_out, DTYPE_F32);
        return;
    }
    if (past_caches) {
        stream_panel(l, acc, row, n_rows, first - l->first_out, DTYPE_BF16);
        return;
    }
    for (int g = 0; g < n_groups; g++, acc += LANES) {
        int out = first + g * LANES, column = out - l->first_out;
        const float *bias = l->weight->bias ? l->weight->bias + out : NULL;
        if (column < 0 || l->n_out - column < LANES)
            store_group_part(l, acc, row, n_rows, column, bias);
        else if (l->y_dtype == DTYPE_F32 && bias)
            store_group(l, acc, row, n_rows, column, bias, 1, DTYPE_F32);
        else if (l->y_dtype == DTYPE_F32)
            store_group(l, acc, row, n_rows, column, bias, 0, DTYPE_F32);
        else if (bias)
            store_group(l, acc, row, n_rows, column, bias, 1, DTYPE_BF16);
        else
            store_group(l, acc, row, n_rows, column, bias, 0, DTYPE_BF16);
    }
}

FOR_EACH_PATH(store_panel,
              (const struct linear_launch *l, const float *acc, int row, int n_rows, int first,
               int n_groups, int past_caches),
              (l, acc, row, n_rows, first, n_groups, past_caches))

/* The rows of a pass, as the products take them. */
struct rows {
    int first, n;
    const bf16 *x;        /* [n, n_in_padded]: the launch's, or where they need padding */
    bf16 *padded;         /* room for a copy, or NULL */
    const char *laid_out; /* the same, or NULL */
    char *layout_room;
};

static void take_rows(const struct task *task, struct rows *rows, int first)
{
    const struct linear_launch *l = task->launch;
    const size_t n_in = (size_t)l->weight->options.n_in, n_padded = (size_t)l->weight->n_in_padded;
    int left = l->n_rows - first;
    rows->first = first;
    rows->n = left < task->cut->rows_a_pass ? left : task->cut->rows_a_pass;
    rows->x = (const bf16 *)l->x + (size_t)first * n_in;
    for (int r = 0; rows->padded && r < rows->n; r++) {
        bf16 *copy = rows->padded + (size_t)r * n_padded;
        memcpy(copy, rows->x + (size_t)r * n_in, n_in * sizeof(bf16));
        memset(copy + n_in, 0, (n_padded - n_in) * sizeof(bf16));
    }
    rows->x = rows->padded ? rows->padded : rows->x;
    rows->laid_out = task->layout && rows->n >= task->layout->rows_least ? rows->layout_room : NULL;
    if (rows->laid_out)
        task->layout->lay_out(rows->layout_room, rows->x, n_padded, rows->n, (int)n_padded / 2);
}

/* Bytes from a run of all laid out rows to the next. */
static size_t laid_out_run(const struct task *task, const struct rows *rows)
{
    if (!rows->laid_out)
        return 0;
    return (size_t)tile_layout_rows(task->layout, rows->n) * task->layout->row_bytes;
}

/* Where they have this pair of this row. */
static const char *laid_out_at(const struct task *task, const struct rows *rows, int row, int pair)
{
    const struct tile_layout *layout = task->layout;
    if (!rows->laid_out)
        return NULL;
    size_t run = (size_t)(pair / layout->run_pairs), in_run = (size_t)(pair % layout->run_pairs);
    return rows->laid_out + run * laid_out_run(task, rows) + (size_t)row * layout->row_bytes +
           in_run * (layout->row_bytes / (size_t)layout->run_pairs);
}

/* Some strips of a weight, of equally many groups, one after another in memory. */
struct strips {
    int first_group, n_groups, n;
    size_t acc_step; /* from the sums of one to those of the next */
};

/* n_rows rows of the pass, from `row` of it on, times some strips. */
static void multiply_strips(const struct task *task, float *acc, const struct rows *rows, int row,
                            int n_rows, const struct strips *strips)
{
    const struct linear_weight *w = task->launch->weight;
    const bf16 *b = (const bf16 *)w->matrix + linear_weight_group_offset(w, strips->first_group);
    int n_groups = strips->n_groups, n_pairs = w->n_in_padded / 2;
    const char *end = (const char *)w->matrix + w->matrix_bytes;
    int in_one = n_rows <= task->cut->rows_a_stream;
    int run = strips->n > 1 || in_one           ? n_pairs
              : n_rows <= task->cut->rows_a_few ? RUN_PAIRS_FEW
                                                : task->cut->run_pairs;
    struct tile_product p = {.acc = acc,
                             .ld_acc = TILE_COLUMNS,
                             .ld_a = (size_t)w->n_in_padded,
                             .laid_out_run = laid_out_run(task, rows),
                             .group_stride = TILE_PAIR,
                             .pair_stride = (size_t)n_groups * TILE_PAIR,
                             .n_rows = n_rows,
                             .n_groups = n_groups,
                             .n_products = strips->n,
                             .acc_step = strips->acc_step,
                             .b_step = (size_t)n_pairs * (size_t)n_groups * TILE_PAIR};
    for (int pair = 0; pair < n_pairs; pair += run) {
        p.a = rows->x + (size_t)row * p.ld_a + 2 * (size_t)pair;
        p.laid_out = laid_out_at(task, rows, row, pair);
        p.b = b + (size_t)pair * p.pair_stride;
        p.n_pairs = n_pairs - pair < run ? n_pairs - pair : run;
        p.resume = pair > 0;
        const char *behind = (const char *)p.b + tile_b_bytes(&p);
        p.next = in_one ? (const char *)p.b + AHEAD_BYTES : behind < end ? behind : NULL;
        task->multiply(&p);
    }
}

/* The same rows times n panels of equally many groups, from `panel` on; the sums of a panel behind
 * those of the one before. */
static void multiply_panels(const struct task *task, float *acc, const struct rows *rows, int row,
                            int n_rows, int panel, int n)
{
    const struct linear_weight *w = task->launch->weight;
    const int n_groups = linear_weight_panel_groups(w, panel), first = panel * LINEAR_PANEL_GROUPS;
    if (n_groups <= w->strip_groups) {
        struct strips panels = {first, n_groups, n, (size_t)n_rows * TILE_COLUMNS};
        multiply_strips(task, acc, rows, row, n_rows, &panels);
        return;
    }
    CHECK(n == 1);
    const int rest = n_groups % w->strip_groups, whole = n_groups - rest;
    struct strips of_panel = {first, w->strip_groups, whole / w->strip_groups,
                              (size_t)(w->strip_groups * TILE_GROUP)};
    multiply_strips(task, acc, rows, row, n_rows, &of_panel);
    if (rest) {
        struct strips last = {first + whole, rest, 1, 0};
        multiply_strips(task, acc + whole * TILE_GROUP, rows, row, n_rows, &last);
    }
}

/* Work space of a thread: sums, then the rows as products take them. */
static float *take_space(const struct task *task, struct rows *rows, int thread_index)
{
    const struct linear_weight *w = task->launch->weight;
    const size_t n_padded = (size_t)w->n_in_padded;
    int most = task->cut->rows_a_pass,
        n_rows = task->launch->n_rows < most ? task->launch->n_rows : most;
    bool pads = w->options.n_in != w->n_in_padded,
         lays_out = task->layout && n_rows >= task->layout->rows_least;
    size_t n_sums = (size_t)(tile_layout_rows(task->layout, n_rows) * task->n_abreast),
           acc_bytes = n_sums * TILE_COLUMNS * sizeof(float),
           layout_bytes = lays_out ? tile_layout_bytes(task->layout, n_rows, (int)n_padded / 2) : 0,
           padded_bytes = pads ? (size_t)n_rows * n_padded * sizeof(bf16) : 0;
    char *space =
        stream_scratch(task->stream, thread_index, acc_bytes + layout_bytes + padded_bytes);
    if (!space)
        return NULL;
    *rows = (struct rows){
        .first = -1,
        .layout_room = lays_out ? space + acc_bytes : NULL,
        .padded = pads ? (bf16 *)(void *)(space + acc_bytes + layout_bytes) : NULL,
    };
    return (float *)(void *)space;
}

/* What a thread works with. */
struct share {
    const struct task *task;
    int thread_index;
    float *acc;
    struct rows rows;
    store_panel_function store;
    int next, n_next; /* units taken; next: -1 none is left, n_next: 0 not yet taken */
};

/* Taking waits until what was stored past the caches is there: so it comes before sums are stored,
 * not behind. */
static void take_next(struct share *share)
{
    if (share->n_next == 0)
        share->next = share_queue_take(share->task->units, share->thread_index, &share->n_next);
}

static int goes_past_caches(const struct task *task)
{
    return task->launch->n_rows >= task->cut->rows_past_caches;
}

/* As multiply_panels(), sums stored. */
static void finish_panels(struct share *share, int row, int n_rows, int panel, int n)
{
    const struct task *task = share->task;
    const struct rows *rows = &share->rows;
    if (n_rows == 0 || n == 0)
        return;
    multiply_panels(task, share->acc, rows, row, n_rows, panel, n);
    take_next(share);
    for (int i = 0; i < n; i++)
        share->store(task->launch, share->acc + (size_t)(i * n_rows) * TILE_COLUMNS,
                     rows->first + row, n_rows, (panel + i) * TILE_COLUMNS,
                     linear_weight_panel_groups(task->launch->weight, panel + i),
                     goes_past_caches(task));
}

/* Where a part of the pass begins. */
static int first_row(const struct task *task, const struct rows *rows, int part)
{
    const struct tile_layout *layout = rows->laid_out ? task->layout : NULL;
    int multiple = layout ? layout->rows_multiple : 1;
    int row = tile_layout_rows(layout, rows->n) / multiple * part / task->n_parts * multiple;
    return row < rows->n ? row : rows->n;
}

/* n parts of one panel, in one pass. */
static void do_parts(struct share *share, int unit, int n)
{
    const struct task *task = share->task;
    struct rows *rows = &share->rows;
    int pass = unit / task->n_parts / task->n_panels, part = unit % task->n_parts;
    int panel = task->first_panel + unit / task->n_parts % task->n_panels;
    if (pass * task->cut->rows_a_pass != rows->first)
        take_rows(task, rows, pass * task->cut->rows_a_pass);
    int row = first_row(task, rows, part), end = first_row(task, rows, part + n);
    finish_panels(share, row, end - row, panel, 1);
}

/* n panels, all rows; the last item may name some that are not there, and the last panel may have
 * fewer groups than those that go side by side. */
static void do_panels(struct share *share, int unit, int n)
{
    const struct task *task = share->task;
    struct rows *rows = &share->rows;
    int panel = task->first_panel + unit, left = task->n_panels - unit;
    n = left < n ? left : n;
    if (n <= 0)
        return;
    if (rows->first < 0)
        take_rows(task, rows, 0);
    int last = panel + n - 1;
    int narrow = linear_weight_panel_groups(task->launch->weight, last) < LINEAR_PANEL_GROUPS;
    finish_panels(share, 0, rows->n, panel, n - narrow);
    finish_panels(share, 0, rows->n, last, narrow);
}

static void multiply_share(void *context, int thread_index, int n_threads)
{
    struct task *task = context;
    struct share share = {.task = task,
                          .thread_index = thread_index,
                          .store = store_panel_of(stream_code_path(task->stream))};
    (void)n_threads;
    share.acc = take_space(task, &share.rows, thread_index);
    if (!share.acc) {
        __atomic_store_n(&task->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (take_next(&share); share.next >= 0; take_next(&share)) {
        int unit = share.next, n = share.n_next;
        share.n_next = 0;
        if (task->n_abreast > 1)
            do_panels(&share, unit, n);
        else
            do_parts(&share, unit, n);
    }
    if (goes_past_caches(task))
        stored_past_caches();
}

enum status linear_cpu(const struct linear_launch *launch, struct stream *stream)
{
    enum code_path path = stream_code_path(stream);
    struct share_queue units;
    struct task task = {.launch = launch,
                        .stream = stream,
                        .multiply = tile_multiply_of(path),
                        .layout = tile_layout_of(path),
                        .cut = &cuts[path],
                        .first_panel = launch->first_out / TILE_COLUMNS,
                        .units = &units};
    int last_panel = (launch->first_out + launch->n_out + TILE_COLUMNS - 1) / TILE_COLUMNS;
    task.n_panels = last_panel - task.first_panel;
    int rows_a_pass = task.cut->rows_a_pass;
    int n_passes = (launch->n_rows + rows_a_pass - 1) / rows_a_pass;
    int n_rows = launch->n_rows < rows_a_pass ? launch->n_rows : rows_a_pass;
    int n_threads = stream_n_threads(stream);
    task.n_parts = n_threads == 1 || n_rows < ROWS_A_PART ? 1 : n_rows / ROWS_A_PART;
    task.n_abreast = tile_products_abreast(path, launch->n_rows);
    if (task.n_abreast > 1)
        share_queue_init(&units, (task.n_panels + task.n_abreast - 1) / task.n_abreast,
                         task.n_abreast, n_threads);
    else
        share_queue_init(&units, n_passes * task.n_panels, task.n_parts, n_threads);
    stream_parallel(stream, multiply_share, &task);
    return task.failed ? STATUS_NOMEM : STATUS_OK;
}
