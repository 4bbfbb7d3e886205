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
 * way, so b is fetched before them, in two steps: far ahead into the second-level cache and nearer
 * into the first; nothing waits there. It runs on past the end of b, where the next one of a weight
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
    RUN_PAIRS = 64,   /* more rows than that: 8 KiB of two groups */
    FAR_BYTES = 5120, /* ahead of what is used next */
    NEAR_BYTES = 2560,
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

/* is_run, here and below, is a constant. */
static inline __attribute__((always_inline)) void fetch(struct walk *w, const int is_run)
{
    /* In runs a load goes before each two prefetches: without it 96 rows take 6 % longer. */
    static const volatile size_t far_bytes = FAR_BYTES;
    for (const char *end = w->fetch + w->n_lines * LINE_BYTES; w->fetch < end;
         w->fetch += LINE_BYTES) {
        __builtin_prefetch(w->fetch + (is_run ? far_bytes : FAR_BYTES), 0, 2);
        __builtin_prefetch(w->fetch + NEAR_BYTES, 0, 3);
    }
}

static inline float *acc_at(const struct walk *w, int row, int group)
{
    return w->p->acc + (size_t)row * w->p->ld_acc + (size_t)(w->group + group) * TILE_GROUP;
}

static inline const bf16 *a_at(const struct walk *w, int row, int pair)
{
    if (w->p->laid_out)
        return (const bf16 *)w->p->laid_out +
               (size_t)(pair / TILE_PAIRS) * (w->p->laid_out_run / sizeof(bf16)) +
               (size_t)(row * 2 * TILE_PAIRS);
    return w->p->a + (size_t)row * w->p->ld_a + 2 * (size_t)pair;
}

static inline const bf16 *b_at(const struct walk *w, int group, int pair)
{
    return w->p->b + (size_t)(w->group + group) * w->p->group_stride +
           (size_t)pair * w->p->pair_stride;
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
        if (w->both)                                                                               \
            OPERATION(right, row, 1);                                                              \
    } while (0)
#define LOAD_A(tile, row)   LOAD(tile, a_at(w, row, pair), w->a_stride)
#define LOAD_B(tile, group) LOAD(tile, b_at(w, group, pair), w->b_stride)

AMX_INLINE void one_row_tile(struct walk *w, int row, const int is_run)
{
    EACH_GROUP(BEGIN, 0, 1, row);
    for (int pair = w->first_pair; pair < w->end_pair; pair += TILE_PAIRS) {
        fetch(w, is_run);
        LOAD_A(4, row);
        LOAD_B(6, 0);
        MULTIPLY(0, 4, 6);
        if (w->both) {
            LOAD_B(7, 1);
            MULTIPLY(1, 4, 7);
        }
    }
    EACH_GROUP(END, 0, 1, row);
}

AMX_INLINE void two_row_tiles(struct walk *w, int row, const int is_run)
{
    const int second = row + w->cut->height;
    EACH_GROUP(BEGIN, 0, 1, row);
    EACH_GROUP(BEGIN, 2, 3, second);
    for (int pair = w->first_pair; pair < w->end_pair; pair += TILE_PAIRS) {
        fetch(w, is_run);
        LOAD_A(4, row);
        LOAD_B(6, 0);
        MULTIPLY(0, 4, 6);
        LOAD_A(5, second);
        MULTIPLY(2, 5, 6);
        if (w->both) {
            LOAD_B(7, 1);
            MULTIPLY(1, 4, 7);
            MULTIPLY(3, 5, 7);
        }
    }
    EACH_GROUP(END, 0, 1, row);
    EACH_GROUP(END, 2, 3, second);
}

/* One register is left for a: its tiles are loaded once for each group. */
AMX_INLINE void three_row_tiles(struct walk *w, int row, const int is_run)
{
    const int second = row + w->cut->height, third = second + w->cut->height;
    EACH_GROUP(BEGIN, 0, 1, row);
    EACH_GROUP(BEGIN, 2, 3, second);
    EACH_GROUP(BEGIN, 4, 5, third);
    for (int pair = w->first_pair; pair < w->end_pair; pair += TILE_PAIRS) {
        fetch(w, is_run);
        LOAD_A(6, row);
        LOAD_B(7, 0);
        MULTIPLY(0, 6, 7);
        LOAD_A(6, second);
        MULTIPLY(2, 6, 7);
        LOAD_A(6, third);
        MULTIPLY(4, 6, 7);
        if (w->both) {
            LOAD_B(7, 1);
            MULTIPLY(5, 6, 7);
            LOAD_A(6, second);
            MULTIPLY(3, 6, 7);
            LOAD_A(6, row);
            MULTIPLY(1, 6, 7);
        }
    }
    EACH_GROUP(END, 0, 1, row);
    EACH_GROUP(END, 2, 3, second);
    EACH_GROUP(END, 4, 5, third);
}

AMX_INLINE void row_tiles(struct walk *w, int row, int n, const int is_run)
{
    if (n == 1)
        one_row_tile(w, row, is_run);
    else if (n == 2)
        two_row_tiles(w, row, is_run);
    else
        three_row_tiles(w, row, is_run);
}

/* All row tiles by one or two groups, some in each pass. */
AMX static void multiply_groups(struct walk *w)
{
    const int n_tiles = w->cut->n_tiles, n_passes = w->cut->n_passes;
    const struct tile_product *p = w->p;
    w->b_stride = p->pair_stride * sizeof(bf16);
    w->n_lines = ((1 + w->both) * TILE_PAIRS + n_passes - 1) / n_passes;
    if (n_passes == 1) {
        w->fetch = (const char *)b_at(w, 0, 0);
        w->end_pair = p->n_pairs;
        w->resume = p->resume;
        row_tiles(w, 0, n_tiles, 0);
        return;
    }
    for (w->first_pair = 0; w->first_pair < p->n_pairs; w->first_pair = w->end_pair) {
        w->end_pair =
            p->n_pairs - w->first_pair < RUN_PAIRS ? p->n_pairs : w->first_pair + RUN_PAIRS;
        w->resume = p->resume || w->first_pair > 0;
        w->fetch =
            (const char *)b_at(w, 0, w->first_pair) + RUN_PAIRS * LINE_BYTES; /* its middle */
        for (int pass = 0; pass < n_passes; pass++) {
            int first = n_tiles * pass / n_passes, end = n_tiles * (pass + 1) / n_passes;
            row_tiles(w, first * w->cut->height, end - first, 1);
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
