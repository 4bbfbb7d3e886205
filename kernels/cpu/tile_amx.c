/*
 * tile_amx.c - the tile product with AMX: tiles of up to 16 rows by 16 pairs times 16 pairs by 16
 * columns.
 *
 * All row counts take this code, since TDPBF16PS sums the two halves of its 16 pairs apart before
 * it adds them, which vdpbf16ps does not: the two would not agree to the bit. A result's bits do
 * not depend on the other rows of its tile. Source: Intel SDM volume 2, TILELOADD, TDPBF16PS,
 * LDTILECFG.
 *
 * One, two or three tiles of rows go together through two groups of columns, whose sums stay in
 * registers from the first pair to the last. Tile loads that wait for memory keep few lines under
 * way, so b is fetched ahead of them, twice: far ahead into the second-level cache and nearer into
 * the first; nothing waits there. It runs on past the end of b, where the next one of a weight
 * begins. More rows take b in runs that stay in the first-level cache, each for all rows. Rows that
 * lie apart by a power of two share few sets of that cache: more than one tile of them are laid out
 * tile by tile.
 *
 * tile_amx_test.c compiles this file a second time against a model of the tiles in plain C
 * (AMX_MODEL), to test the walk over memory on machines without AMX.
 */
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#include "kernels/cpu/amx_operations.h"

#ifndef AMX_MODEL
#define AMX_PRODUCT tile_multiply_amx
#endif

enum {
    TILE_PAIRS = 16,
    LINE_BYTES = 64,
    TILES_TOGETHER = 3,
    RUN_PAIRS = 64, /* more rows than that: 8 KiB of two groups */
    /* Fetched so far ahead of what is used next. Found by trying: up to 32 rows take a twentieth to
     * a tenth longer with others half a KiB away, a seventh at the other end of a step. */
    FAR_BYTES = 7680,
    NEAR_BYTES = 4096,
    RUN_NEAR_BYTES = 2560,
};

/* Results of row tile i and group g are in tile 2 i + g, a of one or two row tiles in 4 and 5, b in
 * 6 and 7. With three row tiles 6 is left for a. */
enum { FIRST_B_TILE = 6 };

/* How the rows of a product are cut: as evenly as may be, for a tile of fewer rows is loaded and
 * multiplied sooner. Where some passes take two row tiles and others three, tile 6 is now b, now a,
 * and all tiles are whole ones. */
struct row_cut {
    int n_tiles, n_passes;
    int height; /* rows of a tile; the last may have fewer that count */
    int first_b_tile;
};

static struct row_cut cut_rows(int n_rows)
{
    struct row_cut cut = {.height = AMX_TILE_ROWS, .first_b_tile = FIRST_B_TILE};
    cut.n_tiles = (n_rows + AMX_TILE_ROWS - 1) / AMX_TILE_ROWS;
    cut.n_passes = (cut.n_tiles + TILES_TOGETHER - 1) / TILES_TOGETHER;
    if (cut.n_tiles % cut.n_passes == 0) {
        cut.height = (n_rows + cut.n_tiles - 1) / cut.n_tiles;
        cut.first_b_tile += cut.n_tiles / cut.n_passes == TILES_TOGETHER;
    }
    return cut;
}

struct walk {
    const struct tile_product *p;
    const struct row_cut *cut;
    size_t acc_stride, a_stride, b_stride; /* bytes */
    int group, both;                       /* the first of two groups, or one alone */
    int first_pair, end_pair;              /* of the run */
    int resume;
    const char *fetch; /* b is fetched ahead of this, */
    int n_lines;       /* so many with every 16 pairs of some row tiles */
};

static inline float *acc_at(const struct walk *w, int row, int group)
{
    return w->p->acc + (size_t)row * w->p->ld_acc + (size_t)(w->group + group) * TILE_GROUP;
}

static inline const char *b_at(const struct walk *w, int pair)
{
    const struct tile_product *p = w->p;
    return (const char *)(p->b + (size_t)w->group * p->group_stride +
                          (size_t)pair * p->pair_stride);
}

/* A kernel's way through the pairs, 16 at a step; all in bytes. */
struct steps {
    const char *a, *b, *fetch;
    size_t a_stride, a_tile, a_step; /* from a row to the next, a row tile, a step */
    size_t b_stride, b_group, b_step;
    size_t fetched; /* with a step */
    int n;          /* that are left */
};

static inline struct steps steps_of(const struct walk *w, int row)
{
    const struct tile_product *p = w->p;
    const size_t a_step = p->laid_out ? p->laid_out_run : 2 * TILE_PAIRS * sizeof(bf16);
    const char *a = p->laid_out ? p->laid_out : p->a;
    return (struct steps){
        .a = a + (size_t)row * w->a_stride + (size_t)(w->first_pair / TILE_PAIRS) * a_step,
        .a_stride = w->a_stride,
        .a_tile = (size_t)w->cut->height * w->a_stride,
        .a_step = a_step,
        .b = b_at(w, w->first_pair),
        .b_stride = w->b_stride,
        .b_group = p->group_stride * sizeof(bf16),
        .b_step = TILE_PAIRS * w->b_stride,
        .fetch = w->fetch,
        .fetched = (size_t)w->n_lines * LINE_BYTES,
        .n = (w->end_pair - w->first_pair) / TILE_PAIRS,
    };
}

/* is_run, here and below, is a constant. */
AMX_INLINE void fetch(struct steps *s, const int is_run)
{
    for (const char *end = s->fetch + s->fetched; s->fetch != end; s->fetch += LINE_BYTES) {
        __builtin_prefetch(s->fetch + FAR_BYTES, 0, 2);
        __builtin_prefetch(s->fetch + (is_run ? RUN_NEAR_BYTES : NEAR_BYTES), 0, 3);
    }
}

/* Runs multiply what is there already, and fetch behind it. */
AMX_INLINE void begin_step(struct steps *s, const int is_run)
{
    if (!is_run)
        fetch(s, 0);
}

AMX_INLINE void end_step(struct steps *s, const int is_run)
{
    if (is_run)
        fetch(s, 1);
    s->a += s->a_step;
    s->b += s->b_step;
    s->n--;
}

#define BEGIN(tile, row, group)                                                                    \
    do {                                                                                           \
        if (w->resume)                                                                             \
            LOAD(tile, acc_at(w, row, group), w->acc_stride);                                      \
        else                                                                                       \
            ZERO(tile);                                                                            \
    } while (0)
#define END(tile, row, group) STORE(tile, acc_at(w, row, group), w->acc_stride)
/* BEGIN or END for the sums of a row tile. */
#define EACH_GROUP(OPERATION, left, right, row)                                                    \
    do {                                                                                           \
        OPERATION(left, row, 0);                                                                   \
        if (both)                                                                                  \
            OPERATION(right, row, 1);                                                              \
    } while (0)
#define LOAD_A(tile, row_tile) LOAD(tile, s.a + (row_tile)*s.a_tile, s.a_stride)
#define LOAD_B(tile, group)    LOAD(tile, s.b + (group)*s.b_group, s.b_stride)

AMX_INLINE void one_row_tile(struct walk *w, int row, const int is_run)
{
    struct steps s = steps_of(w, row);
    const int both = w->both;
    EACH_GROUP(BEGIN, 0, 1, row);
    while (s.n > 0) {
        begin_step(&s, is_run);
        LOAD_A(4, 0);
        LOAD_B(6, 0);
        MULTIPLY(0, 4, 6);
        if (both) {
            LOAD_B(7, 1);
            MULTIPLY(1, 4, 7);
        }
        end_step(&s, is_run);
    }
    w->fetch = s.fetch;
    EACH_GROUP(END, 0, 1, row);
}

AMX_INLINE void two_row_tiles(struct walk *w, int row, const int is_run)
{
    struct steps s = steps_of(w, row);
    const int both = w->both, second = row + w->cut->height;
    EACH_GROUP(BEGIN, 0, 1, row);
    EACH_GROUP(BEGIN, 2, 3, second);
    while (s.n > 0) {
        begin_step(&s, is_run);
        LOAD_A(4, 0);
        LOAD_B(6, 0);
        MULTIPLY(0, 4, 6);
        LOAD_A(5, 1);
        MULTIPLY(2, 5, 6);
        if (both) {
            LOAD_B(7, 1);
            MULTIPLY(1, 4, 7);
            MULTIPLY(3, 5, 7);
        }
        end_step(&s, is_run);
    }
    w->fetch = s.fetch;
    EACH_GROUP(END, 0, 1, row);
    EACH_GROUP(END, 2, 3, second);
}

/* One register is left for a: its tiles are loaded once for each group. */
AMX_INLINE void three_row_tiles(struct walk *w, int row, const int is_run)
{
    struct steps s = steps_of(w, row);
    const int both = w->both, second = row + w->cut->height, third = second + w->cut->height;
    EACH_GROUP(BEGIN, 0, 1, row);
    EACH_GROUP(BEGIN, 2, 3, second);
    EACH_GROUP(BEGIN, 4, 5, third);
    while (s.n > 0) {
        begin_step(&s, is_run);
        LOAD_A(6, 0);
        LOAD_B(7, 0);
        MULTIPLY(0, 6, 7);
        LOAD_A(6, 1);
        MULTIPLY(2, 6, 7);
        LOAD_A(6, 2);
        MULTIPLY(4, 6, 7);
        if (both) {
            LOAD_B(7, 1);
            MULTIPLY(5, 6, 7);
            LOAD_A(6, 1);
            MULTIPLY(3, 6, 7);
            LOAD_A(6, 0);
            MULTIPLY(1, 6, 7);
        }
        end_step(&s, is_run);
    }
    w->fetch = s.fetch;
    EACH_GROUP(END, 0, 1, row);
    EACH_GROUP(END, 2, 3, second);
    EACH_GROUP(END, 4, 5, third);
}

/* Each a function of its own, at a place of its own: how fast the loops fetch depends on the code
 * around them. */
#define KERNEL(name, row_tiles, is_run)                                                            \
    AMX __attribute__((noinline, aligned(64))) static void name(struct walk *w, int row)           \
    {                                                                                              \
        row_tiles(w, row, is_run);                                                                 \
    }
KERNEL(one_whole, one_row_tile, 0)
KERNEL(two_whole, two_row_tiles, 0)
KERNEL(three_whole, three_row_tiles, 0)
KERNEL(one_in_runs, one_row_tile, 1)
KERNEL(two_in_runs, two_row_tiles, 1)
KERNEL(three_in_runs, three_row_tiles, 1)

/* By is_run and the number of row tiles. */
typedef void (*kernel)(struct walk *w, int row);
static const kernel kernels[2][TILES_TOGETHER] = {{one_whole, two_whole, three_whole},
                                                  {one_in_runs, two_in_runs, three_in_runs}};

/* All row tiles by one or two groups, some in each pass. */
AMX static void multiply_groups(struct walk *w)
{
    const int n_tiles = w->cut->n_tiles, n_passes = w->cut->n_passes;
    const struct tile_product *p = w->p;
    w->b_stride = p->pair_stride * sizeof(bf16);
    w->n_lines = ((1 + w->both) * TILE_PAIRS + n_passes - 1) / n_passes;
    if (n_passes == 1) {
        w->fetch = b_at(w, 0);
        w->end_pair = p->n_pairs;
        w->resume = p->resume;
        kernels[0][n_tiles - 1](w, 0);
        return;
    }
    for (w->first_pair = 0; w->first_pair < p->n_pairs; w->first_pair = w->end_pair) {
        w->end_pair =
            p->n_pairs - w->first_pair < RUN_PAIRS ? p->n_pairs : w->first_pair + RUN_PAIRS;
        w->resume = p->resume || w->first_pair > 0;
        w->fetch = b_at(w, w->first_pair) + RUN_PAIRS * LINE_BYTES; /* its middle */
        for (int pass = 0; pass < n_passes; pass++) {
            int first = n_tiles * pass / n_passes, end = n_tiles * (pass + 1) / n_passes;
            kernels[1][end - first - 1](w, first * w->cut->height);
        }
    }
}

AMX static void multiply_single(const struct tile_product *p, const struct row_cut *cut)
{
    struct walk w = {.p = p, .cut = cut, .acc_stride = p->ld_acc * sizeof(float)};
    w.a_stride = p->laid_out ? AMX_ROW_BYTES : p->ld_a * sizeof(bf16);
    for (w.group = 0; w.group < p->n_groups; w.group += 2) {
        w.both = w.group + 1 < p->n_groups;
        multiply_groups(&w);
    }
}

AMX void AMX_PRODUCT(const struct tile_product *product)
{
    const struct row_cut cut = cut_rows(product->n_rows);
    const struct amx_config config = amx_config_of(cut.first_b_tile, cut.height);
    CONFIGURE(&config);
    for (int i = 0; i < product->n_products; i++) {
        struct tile_product p = tile_single(product, i);
        multiply_single(&p, &cut);
    }
    RELEASE();
}

#ifndef AMX_MODEL
static void tile_by_tile(void *to, const bf16 *a, size_t ld_a, int n_rows, int n_pairs)
{
    char *at = to;
    size_t n_past = (size_t)(tile_layout_rows(&tile_layout_amx, n_rows) - n_rows) * AMX_ROW_BYTES;
    for (int pair = 0; pair < n_pairs; pair += TILE_PAIRS, at += n_past) {
        for (int r = 0; r < n_rows; r++, at += AMX_ROW_BYTES)
            memcpy(at, a + (size_t)r * ld_a + 2 * pair, AMX_ROW_BYTES);
        memset(at, 0, n_past);
    }
}

const struct tile_layout tile_layout_amx = {tile_by_tile, AMX_TILE_ROWS + 1, AMX_TILE_ROWS,
                                            TILE_PAIRS, AMX_ROW_BYTES};
#endif
#endif
