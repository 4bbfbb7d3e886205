/*
 * conv2d.c - convolution on the CPU as a product of a patch of pixels with panels of weights.
 *
 * The picture is cut into tiles of cells (output pixels; for UP input pixels, each of which becomes
 * 2x2). For a tile a thread copies its patch (the cells and the border they need, normalised, zeros
 * outside the picture) into scratch that fits the second cache, with AMX as two parts of bf16
 * (tile_bf16x2.h); then, panel by panel of output channels, it multiplies row after row of cells
 * with the weights, at most K_MAX products deep so that the part of the panel in use stays in the
 * first cache, and adds bias and residual as it writes the tile out. Tiles are claimed one at a
 * time, so threads that lose their core to others do not hold the rest up; which thread takes which
 * tile changes no number.
 */
#include "kernels/codec_launch.h"

#include <stdatomic.h>
#include <string.h>

#include "kernels/cpu/norm_row.h"
#include "kernels/cpu/tile_bf16x2.h"
#include "kernels/cpu/tile_f32.h"
#include "kernels/cpu/vector.h"
#include "kernels/stream.h"

enum {
    PATCH_FLOATS =
        80 * 1024,    /* 320 KiB: with the panel and the sums it fits a second cache of 1 MiB */
    CELLS_MAX = 1024, /* of a tile; their sums are 128 KiB */
    K_MAX = 256       /* products a kernel call runs through: 32 KiB of a panel */
};

/* Where tiles lie and what a patch is; in cells but for patch_*, which are pixels of x. */
struct plan {
    int width, height;           /* of the grid of cells */
    int tile_width, tile_height; /* the last ones may be smaller */
    int tiles_across, n_tiles;
    int stride;                    /* pixels between cells */
    int span;                      /* pixels that a cell needs, each way */
    int border;                    /* of them, before the cell's own */
    int patch_width, patch_height; /* of a whole tile */
};

/* A patch and the sums of its cells, in a thread's scratch. */
struct work {
    float *patch;     /* or: */
    bf16 *high, *low; /* the same as two parts */
    float *sums;
};

struct job {
    float *y;
    const float *x, *residual;
    const struct conv2d_weight *weight;
    const struct conv2d_norm *norm;
    int width, height; /* of x */
    struct plan plan;
    struct stream *stream;
    const struct tile_f32 *kernels; /* where the weight is not is_bf16x2 */
    atomic_int next_tile;
    atomic_bool out_of_memory;
};

static int divide_up(int a, int b)
{
    return (a + b - 1) / b;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Rows of cells that fit the patch and the limit of cells when a tile is `width` cells wide; below
 * 1 when none does. */
static int rows_that_fit(const struct plan *plan, int width, int n_in)
{
    int patch_width = (width - 1) * plan->stride + plan->span;
    int patch_rows = PATCH_FLOATS / (patch_width * n_in);
    if (patch_rows < plan->span)
        return 0;
    return smaller((patch_rows - plan->span) / plan->stride + 1, CELLS_MAX / width);
}

/* The widest candidate wastes least at the ends of rows, a squarer tile reads less border: take the
 * one with the smallest patch a cell. Candidates are multiples of the rows of a kernel call; equal
 * tiles waste least where those may be fewer. */
static void choose_tile(struct plan *plan, int n_in, bool is_bf16x2, int n_threads)
{
    static const int multiples_of_12[] = {48, 36, 24, 12, 6, 3, 1},
                     multiples_of_16[] = {48, 32, 16, 12, 6, 3, 1};
    const int *widths = is_bf16x2 ? multiples_of_16 : multiples_of_12;
    double best = 0;
    plan->tile_width = plan->tile_height = 1;
    for (size_t i = 0; i < sizeof(multiples_of_12) / sizeof(multiples_of_12[0]); i++) {
        int width = is_bf16x2 ? smaller(widths[i], plan->width)
                              : divide_up(plan->width, divide_up(plan->width, widths[i]));
        int height = smaller(rows_that_fit(plan, width, n_in), plan->height);
        if (height < 1)
            continue;
        double patch = (double)((width - 1) * plan->stride + plan->span) *
                       ((height - 1) * plan->stride + plan->span);
        double share = width * height / patch;
        if (share > best * 1.02) {
            best = share;
            plan->tile_width = width;
            plan->tile_height = height;
        }
    }
    /* A small picture is cut finer, so that every thread has several tiles to claim. */
    plan->tiles_across = divide_up(plan->width, plan->tile_width);
    int bands = smaller(divide_up(4 * n_threads, plan->tiles_across), plan->height);
    plan->tile_height = smaller(plan->tile_height, divide_up(plan->height, bands));
}

static void plan_tiles(struct plan *plan, const struct conv2d_weight *weight, int width, int height,
                       int n_threads)
{
    const struct conv2d_shape *shape = &weight->shape;
    int down = shape->kind == CONV2D_DOWN;
    plan->width = down ? width / 2 : width;
    plan->height = down ? height / 2 : height; /* for UP the cells are the input's pixels */
    plan->stride = down ? 2 : 1;
    plan->span = shape->kernel;
    plan->border = down ? 0 : shape->kernel / 2;
    choose_tile(plan, shape->n_in, weight->is_bf16x2, n_threads);
    plan->n_tiles = plan->tiles_across * divide_up(plan->height, plan->tile_height);
    plan->patch_width = (plan->tile_width - 1) * plan->stride + plan->span;
    plan->patch_height = (plan->tile_height - 1) * plan->stride + plan->span;
}

/* Rows of sums that a row of cells takes: with tiles of AMX whole ones. */
static int sum_rows(const struct job *job, int columns)
{
    return job->weight->is_bf16x2 ? divide_up(columns, TILE_BF16X2_ROWS) * TILE_BF16X2_ROWS
                                  : columns;
}

/* Pixels of x to number `at` of the patch and behind; from NULL: zeros. */
static void put_pixels(const struct job *job, const struct work *work, size_t at, const float *from,
                       int n)
{
    const int n_in = job->weight->shape.n_in;
    const size_t count = (size_t)n * (size_t)n_in;
    if (!job->weight->is_bf16x2) {
        if (from)
            norm_row(work->patch + at, from, n, n_in, job->norm, stream_code_path(job->stream));
        else
            memset(work->patch + at, 0, sizeof(*work->patch) * count);
        return;
    }
    if (from) {
        norm_row_bf16x2(work->high + at, work->low + at, from, n, n_in, job->norm);
        return;
    }
    memset(work->high + at, 0, sizeof(*work->high) * count);
    memset(work->low + at, 0, sizeof(*work->low) * count);
}

/* Copies the patch whose first pixel is (top, left) of x, which may lie outside. */
static void gather(const struct job *job, const struct work *work, int top, int left, int rows,
                   int columns)
{
    const size_t n_in = (size_t)job->weight->shape.n_in;
    int before = left < 0 ? -left : 0;
    int inside = smaller(left + columns, job->width) - (left + before);
    size_t at = 0;
    for (int r = top; r < top + rows; r++, at += (size_t)job->plan.patch_width * n_in) {
        if (r < 0 || r >= job->height) {
            put_pixels(job, work, at, NULL, columns);
            continue;
        }
        const float *from = job->x + ((size_t)r * job->width + left + before) * n_in;
        put_pixels(job, work, at, NULL, before);
        put_pixels(job, work, at + (size_t)before * n_in, from, inside);
        put_pixels(job, work, at + (size_t)(before + inside) * n_in, NULL,
                   columns - before - inside);
    }
}

/* Some cells of a tile, and where their sums go. */
struct cells {
    int top, left, rows, columns;
    int first_channel, n; /* of the panel */
    int phase;            /* place in the 2x2 of UP */
};

/* The sums of one row of cells (+)= k numbers of the patch, from `at` on, times as many rows of a
 * panel. */
static void multiply_row(const struct job *job, const struct work *work, float *sums, ptrdiff_t at,
                         const float *panel, const struct cells *cells, int k, bool add)
{
    const int stride = job->plan.stride * job->weight->shape.n_in, n = cells->n;
    if (!job->weight->is_bf16x2) {
        tile_f32_multiply(job->kernels, sums, n, work->patch + at, stride, panel, n, cells->columns,
                          n, k, add);
        return;
    }
    const struct bf16x2_rows rows = {work->high + at, work->low + at, (size_t)stride};
    tile_bf16x2_multiply(sums, (size_t)n, &rows, panel, sum_rows(job, cells->columns), n, k, add);
}

/* sums [rows, sum_rows(), n] = patch times one panel; the first cell begins at number `first` of
 * the patch. */
static void multiply(const struct job *job, const struct work *work, ptrdiff_t first,
                     const float *panel, const struct cells *cells)
{
    const struct plan *plan = &job->plan;
    const int n = cells->n, n_in = job->weight->shape.n_in,
              unit = job->weight->is_bf16x2 ? TILE_BF16X2_STEP : 1;
    const int run = job->weight->taps * n_in, chunks = divide_up(run, K_MAX);
    const ptrdiff_t line = (ptrdiff_t)plan->patch_width * n_in,
                    sums = sum_rows(job, cells->columns) * n;
    bool add = false;
    for (int tap = 0; tap < job->weight->taps; tap++)
        for (int chunk = 0; chunk < chunks; chunk++) {
            int from = (int)((int64_t)(run / unit) * chunk / chunks) * unit;
            int k = (int)((int64_t)(run / unit) * (chunk + 1) / chunks) * unit - from;
            for (int r = 0; r < cells->rows; r++)
                multiply_row(job, work, work->sums + r * sums,
                             first + (r * plan->stride + tap) * line + from, panel, cells, k, add);
            panel += (size_t)k * n;
            add = true;
        }
}

/* y = sums + bias + residual for `used` of the n channels of one pixel. */
VECTOR_INLINE void write_pixel(float *y, const float *sums, const float *bias,
                               const float *residual, int used)
{
    for (int c = 0; c < used; c += LANES) {
        int lanes = smaller(LANES, used - c);
        f32x16 v = load_f32(sums + c) + load_f32(bias + c);
        if (residual)
            v += load_lanes(residual, DTYPE_F32, c, lanes);
        store_lanes(y, DTYPE_F32, c, v, lanes);
    }
}

VECTOR_INLINE void write_cells_body(const struct job *job, const float *sums,
                                    const struct cells *cells)
{
    const struct conv2d_shape *shape = &job->weight->shape;
    int zoom = shape->kind == CONV2D_UP ? 2 : 1;
    int used = smaller(cells->n, shape->n_out - cells->first_channel);
    const float *bias = job->weight->memory + cells->first_channel;
    const int unused = sum_rows(job, cells->columns) - cells->columns;
    for (int r = 0; r < cells->rows; r++, sums += unused * cells->n) {
        size_t line = (size_t)((cells->top + r) * zoom + cells->phase / 2) * job->plan.width * zoom;
        for (int c = 0; c < cells->columns; c++, sums += cells->n) {
            size_t pixel = line + (cells->left + c) * zoom + cells->phase % 2;
            size_t at = pixel * shape->n_out + cells->first_channel;
            write_pixel(job->y + at, sums, bias, job->residual ? job->residual + at : NULL, used);
        }
    }
}

FOR_EACH_PATH(write_cells, (const struct job *job, const float *sums, const struct cells *cells),
              (job, sums, cells))

static void run_tile(const struct job *job, int tile, const struct work *work)
{
    const struct plan *plan = &job->plan;
    const struct conv2d_weight *weight = job->weight;
    struct cells cells = {.top = tile / plan->tiles_across * plan->tile_height,
                          .left = tile % plan->tiles_across * plan->tile_width};
    cells.rows = smaller(plan->tile_height, plan->height - cells.top);
    cells.columns = smaller(plan->tile_width, plan->width - cells.left);
    gather(job, work, cells.top * plan->stride - plan->border,
           cells.left * plan->stride - plan->border, (cells.rows - 1) * plan->stride + plan->span,
           (cells.columns - 1) * plan->stride + plan->span);
    for (cells.phase = 0; cells.phase < weight->n_phases; cells.phase++) {
        int row = cells.phase / 2, column = cells.phase % 2; /* of the phase's first pixel */
        ptrdiff_t from = (ptrdiff_t)(row * plan->patch_width + column) * weight->shape.n_in;
        for (int first = 0; first < weight->n_columns; first += TILE_F32_COLUMNS) {
            cells.first_channel = first;
            cells.n = smaller(TILE_F32_COLUMNS, weight->n_columns - first);
            multiply(job, work, from,
                     weight->memory + conv2d_weight_panel_at(weight, cells.phase, first), &cells);
            write_cells_of(stream_code_path(job->stream))(job, work->sums, &cells);
        }
    }
}

/* In a thread's scratch; false: there is none. Tiles of AMX read on past the patch's last pixels,
 * for sums that nobody uses. */
static bool take_work(const struct job *job, struct work *work, int thread_index)
{
    const struct plan *plan = &job->plan;
    const size_t n_in = (size_t)job->weight->shape.n_in;
    const size_t past =
        job->weight->is_bf16x2 ? (size_t)(TILE_BF16X2_ROWS * plan->stride) * n_in : 0;
    size_t n_sums =
               (size_t)(sum_rows(job, plan->tile_width) * plan->tile_height) * TILE_F32_COLUMNS,
           n_patch = (size_t)plan->patch_width * (size_t)plan->patch_height * n_in + past;
    n_patch = (n_patch + 31) / 32 * 32; /* either part, and the sums, begin at a cache line */
    float *patch = stream_scratch(job->stream, thread_index, sizeof(float) * (n_patch + n_sums));
    *work = (struct work){.patch = patch, .high = (bf16 *)(void *)patch};
    if (!patch)
        return false;
    work->low = work->high + n_patch;
    work->sums = patch + n_patch;
    return true;
}

static void run_tiles(void *context, int thread_index, int n_threads)
{
    (void)n_threads;
    struct job *job = context;
    struct work work;
    if (!take_work(job, &work, thread_index)) {
        job->out_of_memory = true;
        return;
    }
    if (job->weight->is_bf16x2)
        tile_bf16x2_begin();
    for (int tile; (tile = atomic_fetch_add(&job->next_tile, 1)) < job->plan.n_tiles;)
        run_tile(job, tile, &work);
    if (job->weight->is_bf16x2)
        tile_bf16x2_end();
}

enum status conv2d_cpu(const struct conv2d_launch *launch, struct stream *stream)
{
    struct job job = {.y = launch->y,
                      .x = launch->x,
                      .residual = launch->residual,
                      .weight = launch->weight,
                      .norm = launch->norm,
                      .width = launch->width,
                      .height = launch->height,
                      .stream = stream,
                      .kernels = tile_f32_of(stream)};
    plan_tiles(&job.plan, launch->weight, launch->width, launch->height, stream_n_threads(stream));
    stream_parallel(stream, run_tiles, &job);
    return job.out_of_memory ? STATUS_NOMEM : STATUS_OK;
}
