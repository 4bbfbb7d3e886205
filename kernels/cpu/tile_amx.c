/*
 * tile_amx.c - the tile product with AMX: tiles of 16 rows by 16 pairs times 16 pairs by 16
 * columns.
 *
 * All row counts take this code, since TDPBF16PS sums the two halves of its 16 pairs apart before
 * it adds them, which vdpbf16ps does not: the two would not agree to the bit. A result's bits do
 * not depend on the other rows of its tile. Up to 16 rows: four tiles of results, one of a, three
 * of b in turn. Up to 32 rows: two by two tiles of results, so that every tile of a and b that is
 * loaded serves twice. Source: Intel SDM volume 2, TILELOADD, TDPBF16PS, LDTILECFG.
 *
 * Tile loads that wait for memory keep few lines under way, so b is fetched before them. Up to 16
 * rows in two steps, into the second-level cache and nearer into the first: nothing waits there.
 * More rows take b in runs that stay in the first-level cache; plain loads go through the next run
 * meanwhile, and prefetches before those. Rows that lie apart by a power of two share few sets of
 * that cache: so they are laid out tile by tile.
 *
 * tile_amx_test.c compiles this file a second time against a model of the tiles in plain C
 * (AMX_MODEL), to test the walk over memory on machines without AMX.
 */
#include "kernels/cpu/amx.h"
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#ifndef AMX_MODEL
#include <immintrin.h>
#define AMX                          __attribute__((target("amx-tile,amx-bf16")))
#define AMX_PRODUCT                  tile_multiply_amx
#define CONFIGURE(config)            amx_load_config(config)
#define RELEASE()                    _tile_release()
#define ZERO(tile)                   _tile_zero(tile)
#define LOAD(tile, address, stride)  _tile_loadd(tile, address, stride)
#define STORE(tile, address, stride) _tile_stored(tile, address, stride)
#define MULTIPLY(tile, a, b)         _tile_dpbf16ps(tile, a, b)
#endif

enum {
    TILE_PAIRS = 16,
    LINE_BYTES = 64,
    RUN_PAIRS = 32,   /* 8 KiB of b */
    FAR_BYTES = 2048, /* up to 16 rows: ahead of what is used next */
    NEAR_BYTES = 1280,
};

/* Tiles 0-3 hold results, of rows[0] or (2 and 3, with two row tiles) rows[1]; a lies in 4 (and 5),
 * b in the others. */
static void make_config(struct amx_config *config, const int rows[2])
{
    *config = (struct amx_config){.palette = 1};
    for (int tile = 0; tile < AMX_TILES; tile++) {
        config->row_bytes[tile] = AMX_ROW_BYTES;
        int second = rows[1] && (tile == 2 || tile == 3 || tile == 5);
        int is_b = tile > 5 || (tile == 5 && !rows[1]);
        config->rows[tile] = (uint8_t)(is_b ? TILE_PAIRS : rows[second]);
    }
}

struct walk {
    const struct tile_product *p;
    size_t acc_stride, a_stride, b_stride; /* bytes */
    int first_pair, end_pair;              /* of the run */
    int resume;
    const char *fetch, *fetch_end; /* what is still to be read, */
    size_t bytes_a_round;          /* with every 16 pairs of some tiles */
    int few;                       /* rows: one tile */
};

static inline const char *end_of_round(const struct walk *w)
{
    size_t left = (size_t)(w->fetch_end - w->fetch);
    return w->fetch + (left < w->bytes_a_round ? left : w->bytes_a_round);
}

/* How far prefetches are ahead of the plain loads. Volatile: each loads it first, and 32 rows take
 * a fifth more time otherwise, probably since prefetches then go before the plain loads. */
static const volatile size_t ahead_bytes = 4096;

static inline void fetch_run(struct walk *w)
{
    for (const char *end = end_of_round(w); w->fetch < end; w->fetch += LINE_BYTES) {
        __builtin_prefetch(w->fetch + ahead_bytes, 0, 2);
        (void)*(const volatile char *)w->fetch;
    }
}

static inline void fetch_few(struct walk *w)
{
    for (const char *end = end_of_round(w); w->fetch < end; w->fetch += LINE_BYTES) {
        __builtin_prefetch(w->fetch + FAR_BYTES, 0, 2);
        __builtin_prefetch(w->fetch + NEAR_BYTES, 0, 3);
    }
}

static inline float *acc_at(const struct walk *w, int row, int group)
{
    return w->p->acc + (size_t)row * w->p->ld_acc + (size_t)group * TILE_GROUP;
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
    return w->p->b + (size_t)group * w->p->group_stride + (size_t)pair * w->p->pair_stride;
}

#define BEGIN(tile, row, group)                                                                    \
    do {                                                                                           \
        if (w->resume)                                                                             \
            LOAD(tile, acc_at(w, row, group), w->acc_stride);                                      \
        else                                                                                       \
            ZERO(tile);                                                                            \
    } while (0)

/* 1..16 rows by n_groups. */
AMX static void one_row_tile(struct walk *w, int row)
{
    int groups = w->p->n_groups;
    BEGIN(0, row, 0);
    if (groups > 1)
        BEGIN(1, row, 1);
    if (groups > 2)
        BEGIN(2, row, 2);
    if (groups > 3)
        BEGIN(3, row, 3);
    for (int pair = w->first_pair; pair < w->end_pair; pair += TILE_PAIRS) {
        if (w->few)
            fetch_few(w);
        else
            fetch_run(w);
        LOAD(4, a_at(w, row, pair), w->a_stride);
        LOAD(5, b_at(w, 0, pair), w->b_stride);
        MULTIPLY(0, 4, 5);
        if (groups > 1) {
            LOAD(6, b_at(w, 1, pair), w->b_stride);
            MULTIPLY(1, 4, 6);
        }
        if (groups > 2) {
            LOAD(7, b_at(w, 2, pair), w->b_stride);
            MULTIPLY(2, 4, 7);
        }
        if (groups > 3) {
            LOAD(5, b_at(w, 3, pair), w->b_stride);
            MULTIPLY(3, 4, 5);
        }
    }
    STORE(0, acc_at(w, row, 0), w->acc_stride);
    if (groups > 1)
        STORE(1, acc_at(w, row, 1), w->acc_stride);
    if (groups > 2)
        STORE(2, acc_at(w, row, 2), w->acc_stride);
    if (groups > 3)
        STORE(3, acc_at(w, row, 3), w->acc_stride);
}

/* Two row tiles, at `row` and `second`, by the two groups (or the last one) at `group`. */
AMX static void two_row_tiles(struct walk *w, int row, int second, int group)
{
    int both = group + 1 < w->p->n_groups;
    BEGIN(0, row, group);
    BEGIN(2, second, group);
    if (both) {
        BEGIN(1, row, group + 1);
        BEGIN(3, second, group + 1);
    }
    for (int pair = w->first_pair; pair < w->end_pair; pair += TILE_PAIRS) {
        fetch_run(w);
        LOAD(4, a_at(w, row, pair), w->a_stride);
        LOAD(6, b_at(w, group, pair), w->b_stride);
        MULTIPLY(0, 4, 6);
        LOAD(5, a_at(w, second, pair), w->a_stride);
        MULTIPLY(2, 5, 6);
        if (both) {
            LOAD(7, b_at(w, group + 1, pair), w->b_stride);
            MULTIPLY(1, 4, 7);
            MULTIPLY(3, 5, 7);
        }
    }
    STORE(0, acc_at(w, row, group), w->acc_stride);
    STORE(2, acc_at(w, second, group), w->acc_stride);
    if (both) {
        STORE(1, acc_at(w, row, group + 1), w->acc_stride);
        STORE(3, acc_at(w, second, group + 1), w->acc_stride);
    }
}

/* Rows of the pass at `row`: of its first and second tile. Laid out ones fill whole tiles, and all
 * passes have one configuration: loading another takes as long as some twenty products. */
static void rows_of_pass(int rows[2], const struct tile_product *p, int row)
{
    for (int tile = 0; tile < 2; tile++, row += AMX_TILE_ROWS) {
        int left = p->n_rows > row ? p->n_rows - row : 0;
        rows[tile] = left > AMX_TILE_ROWS || (left && p->laid_out) ? AMX_TILE_ROWS : left;
    }
}

/* How fast b is fetched: what 16 pairs have, over all that is done with them. */
static void set_pace(struct walk *w)
{
    const struct tile_product *p = w->p;
    int n_rounds = 0;
    for (int row = 0; row < p->n_rows; row += 2 * AMX_TILE_ROWS)
        n_rounds += p->n_rows - row > AMX_TILE_ROWS ? (p->n_groups + 1) / 2 : 1;
    w->bytes_a_round = (size_t)((p->n_groups * TILE_PAIRS + n_rounds - 1) / n_rounds) * LINE_BYTES;
}

/* What is fetched while the tiles use the run: itself, or the run behind it, here or in the next b.
 */
static void begin_fetch(struct walk *w)
{
    const struct tile_product *p = w->p;
    int pair = w->few ? w->first_pair : w->end_pair;
    w->fetch_end = (const char *)p->b + tile_b_bytes(p);
    w->fetch = pair < p->n_pairs ? (const char *)b_at(w, 0, pair) : w->fetch_end;
    if (pair >= p->n_pairs && p->next) {
        w->fetch = p->next;
        w->fetch_end = w->fetch + p->next_bytes;
    }
}

/* One full tile and two have the same configuration. */
AMX static void configure(int configured[2], const int rows[2])
{
    struct amx_config config;
    int second = rows[0] == AMX_TILE_ROWS && !rows[1] ? AMX_TILE_ROWS : rows[1];
    if (configured[0] == rows[0] && configured[1] == second)
        return;
    configured[0] = rows[0];
    configured[1] = second;
    make_config(&config, configured);
    CONFIGURE(&config);
}

AMX static void multiply_single(const struct tile_product *p)
{
    struct walk w = {.p = p,
                     .acc_stride = p->ld_acc * sizeof(float),
                     .a_stride = p->laid_out ? AMX_ROW_BYTES : p->ld_a * sizeof(bf16),
                     .b_stride = p->pair_stride * sizeof(bf16),
                     .few = p->n_rows <= AMX_TILE_ROWS};
    int configured[2] = {0, 0};
    int run = w.few ? p->n_pairs : RUN_PAIRS;
    set_pace(&w);
    for (w.first_pair = 0; w.first_pair < p->n_pairs; w.first_pair = w.end_pair) {
        w.end_pair = p->n_pairs - w.first_pair < run ? p->n_pairs : w.first_pair + run;
        w.resume = p->resume || w.first_pair > 0;
        begin_fetch(&w);
        for (int row = 0; row < p->n_rows; row += 2 * AMX_TILE_ROWS) {
            int rows[2];
            rows_of_pass(rows, p, row);
            configure(configured, rows);
            if (!rows[1])
                one_row_tile(&w, row);
            for (int group = 0; rows[1] && group < p->n_groups; group += 2)
                two_row_tiles(&w, row, row + AMX_TILE_ROWS, group);
        }
    }
    RELEASE();
}

AMX void AMX_PRODUCT(const struct tile_product *product)
{
    for (int i = 0; i < product->n_products; i++) {
        struct tile_product p = tile_single(product, i);
        multiply_single(&p);
    }
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
