/*
 * linear.c - the bf16 product: threads take contiguous runs of panels, so each streams its part of
 * the matrix once, and at the end panels of those that are behind.
 *
 * Within a panel the inputs go in runs that fit into the first-level cache and all rows pass over a
 * run before the next: memory is read once for all rows, and the next run is fetched while this one
 * is used. Up to one tile of rows there is nothing to reuse, and the panel goes in one run.
 */
#include "base/check.h"
#include "kernels/cpu/share_queue.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/vector.h"
#include "kernels/linear_weight.h"

enum {
    ROWS_A_PASS = 128, /* rows whose sums (32 KiB) stay in the cache while the panel passes */
    ROWS_A_STREAM = 6, /* up to here the panel is read once anyway; with AMX: */
    ROWS_A_STREAM_AMX = 16,
    ROWS_A_FEW = 16,    /* up to here memory is the limit, and short runs keep the reading even */
    RUN_PAIRS_FEW = 64, /* inputs in a run: 16 KiB of the panel */
    RUN_PAIRS_MANY = 512,
    AHEAD_BYTES = 4096, /* how far ahead a single pass fetches */
};

struct task {
    const struct linear_launch *launch;
    struct stream *stream;
    tile_multiply multiply;
    int rows_a_stream;
    int first_panel, n_panels; /* a unit is a panel in a pass over ROWS_A_PASS rows */
    struct share_queue *units; /* pass after pass */
    int failed;                /* written by any thread that finds no memory */
};

/* Sums of a panel, of n_rows rows from `row` on, to y; columns outside of the launch's range are
 * dropped. */
VECTOR_INLINE void store_panel_body(const struct linear_launch *l, const float *acc, int row,
                                    int n_rows, int first, int n_groups)
{
    for (int r = 0; r < n_rows; r++)
        for (int g = 0; g < n_groups; g++) {
            int out = first + g * LANES, column = out - l->first_out;
            size_t at = (size_t)(row + r) * (size_t)l->n_out;
            f32x16 v = load_f32(acc + (size_t)r * TILE_COLUMNS + g * LANES);
            if (l->weight->bias)
                v += load_f32(l->weight->bias + out);
            if (column >= 0) {
                if (column < l->n_out)
                    store_lanes(l->y, l->y_dtype, at + (size_t)column, v,
                                l->n_out - column < LANES ? l->n_out - column : LANES);
                continue;
            }
            /* The range begins inside this group. */
            float values[LANES];
            store_f32(values, v);
            int n = LANES + column < l->n_out ? LANES + column : l->n_out;
            for (int i = 0; i < n; i++)
                store_lanes(l->y, l->y_dtype, at + (size_t)i, (f32x16){values[i - column]}, 1);
        }
}

FOR_EACH_PATH(store_panel,
              (const struct linear_launch *l, const float *acc, int row, int n_rows, int first,
               int n_groups),
              (l, acc, row, n_rows, first, n_groups))

/* Rows of x with n_in_padded inputs: x itself where nothing needs padding, else a copy. */
static const bf16 *padded_rows(const struct linear_launch *l, bf16 *copy, int row, int n_rows)
{
    const struct linear_weight *w = l->weight;
    const size_t n_in = (size_t)w->options.n_in, padded = (size_t)w->n_in_padded;
    const bf16 *x = (const bf16 *)l->x + (size_t)row * n_in;
    if (n_in == padded)
        return x;
    for (int r = 0; r < n_rows; r++) {
        memcpy(copy + (size_t)r * padded, x + (size_t)r * n_in, n_in * sizeof(bf16));
        memset(copy + (size_t)r * padded + n_in, 0, (padded - n_in) * sizeof(bf16));
    }
    return copy;
}

static void multiply_panel(const struct task *task, float *acc, const bf16 *x, int n_rows,
                           int panel)
{
    const struct linear_weight *w = task->launch->weight;
    const bf16 *b =
        (const bf16 *)w->matrix + linear_weight_group_offset(w, panel * LINEAR_PANEL_GROUPS);
    int n_groups = linear_weight_panel_groups(w, panel), n_pairs = w->n_in_padded / 2;
    int run = n_rows <= task->rows_a_stream ? n_pairs
              : n_rows <= ROWS_A_FEW        ? RUN_PAIRS_FEW
                                            : RUN_PAIRS_MANY;
    struct tile_product p = {.acc = acc,
                             .ld_acc = TILE_COLUMNS,
                             .ld_a = (size_t)w->n_in_padded,
                             .group_stride = TILE_PAIR,
                             .pair_stride = (size_t)n_groups * TILE_PAIR,
                             .n_rows = n_rows,
                             .n_groups = n_groups,
                             .n_products = 1};
    for (int pair = 0; pair < n_pairs; pair += run) {
        p.a = x + 2 * (size_t)pair;
        p.b = b + (size_t)pair * p.pair_stride;
        p.n_pairs = n_pairs - pair < run ? n_pairs - pair : run;
        p.resume = pair > 0;
        p.next =
            (const char *)p.b + (n_rows <= task->rows_a_stream ? AHEAD_BYTES : tile_b_bytes(&p));
        task->multiply(&p);
    }
}

static int rows_a_pass(const struct linear_launch *l)
{
    return l->n_rows < ROWS_A_PASS ? l->n_rows : ROWS_A_PASS;
}

static void multiply_share(void *context, int thread_index, int n_threads)
{
    struct task *task = context;
    const struct linear_launch *l = task->launch;
    const struct linear_weight *w = l->weight;
    (void)n_threads;
    size_t acc_bytes = (size_t)rows_a_pass(l) * TILE_COLUMNS * sizeof(float);
    size_t copy_bytes = w->options.n_in == w->n_in_padded
                            ? 0
                            : (size_t)rows_a_pass(l) * (size_t)w->n_in_padded * sizeof(bf16);
    float *acc = stream_scratch(task->stream, thread_index, acc_bytes + copy_bytes);
    if (!acc) {
        __atomic_store_n(&task->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    store_panel_function store = store_panel_of(stream_code_path(task->stream));
    const bf16 *x = NULL;
    for (int unit, row = -1; (unit = share_queue_take(task->units, thread_index)) >= 0;) {
        int first = unit / task->n_panels * ROWS_A_PASS;
        int n_rows = l->n_rows - first < ROWS_A_PASS ? l->n_rows - first : ROWS_A_PASS;
        if (first != row) {
            row = first;
            x = padded_rows(l, (bf16 *)((char *)acc + acc_bytes), row, n_rows);
        }
        int panel = task->first_panel + unit % task->n_panels;
        multiply_panel(task, acc, x, n_rows, panel);
        store(l, acc, row, n_rows, panel * TILE_COLUMNS, linear_weight_panel_groups(w, panel));
    }
}

enum status linear_cpu(const struct linear_launch *launch, struct stream *stream)
{
    enum code_path path = stream_code_path(stream);
    struct share_queue units;
    struct task task = {.launch = launch,
                        .stream = stream,
                        .multiply = tile_multiply_of(path),
                        .rows_a_stream = path == CODE_PATH_AMX ? ROWS_A_STREAM_AMX : ROWS_A_STREAM,
                        .first_panel = launch->first_out / TILE_COLUMNS,
                        .units = &units};
    int last_panel = (launch->first_out + launch->n_out + TILE_COLUMNS - 1) / TILE_COLUMNS;
    task.n_panels = last_panel - task.first_panel;
    int n_passes = (launch->n_rows + ROWS_A_PASS - 1) / ROWS_A_PASS;
    share_queue_init(&units, n_passes * task.n_panels, stream_n_threads(stream));
    stream_parallel(stream, multiply_share, &task);
    return task.failed ? STATUS_NOMEM : STATUS_OK;
}
