/*
 * tile.h - the inner product of every bf16 kernel: a few rows times up to 64 columns, one version
 * for each code path.
 *
 * acc[r][j] = (resume ? acc[r][j] : 0) + sum over p of a[r][2p] * b[p][j][0] + a[r][2p + 1] *
 * b[p][j][1], in f32, the pairs p in rising order in one chain: so the bits of acc[r][j] depend on
 * row r and column j alone, never on the number of rows or columns, and cutting the pairs into
 * several calls with `resume` changes nothing. (AMX adds 16 pairs at a time; its cuts must lie at
 * multiples of 16 pairs.)
 *
 * b lies in groups of 16 columns: a group and pair is 64 bytes, columns side by side, each with its
 * two inputs: the layout that vdpbf16ps and the tiles of AMX read as it is; weights may lie
 * otherwise within the 64 bytes (tile_weight_place()). Columns past the last are zero.
 */
#ifndef MGPT_KERNELS_CPU_TILE_H
#define MGPT_KERNELS_CPU_TILE_H

#include "kernels/stream.h"

enum {
    TILE_GROUP = 16,     /* columns in a group */
    TILE_GROUPS_MAX = 4, /* groups in a product */
    TILE_COLUMNS = TILE_GROUP * TILE_GROUPS_MAX,
    TILE_PAIR = 2 * TILE_GROUP, /* bf16 of one group and pair */
    TILE_STRIP_PAIRS = 8,
    TILE_STRIPS_MAX = 4
};

struct tile_product {
    float *acc; /* [n_rows, ld_acc] */
    size_t ld_acc;
    const bf16 *a; /* [n_rows, ld_a], 2 * n_pairs of each row are used */
    size_t ld_a;
    const void *laid_out; /* the same, laid out before: tile_layout_of(); or NULL, for
                             tile_multiply_amx with up to 16 rows only */
    size_t laid_out_run;  /* bytes from a run of all its rows to the next */
    const bf16 *b;        /* aligned to 64 bytes */
    size_t group_stride;  /* bf16 from a group to the next */
    size_t pair_stride;   /* bf16 from a pair to the next */
    size_t strip_stride; /* 0, or the pairs lie in up to TILE_STRIPS_MAX strips of TILE_STRIP_PAIRS:
                            bf16 from a strip to the next; for tile_multiply_any_of() only */
    int n_rows, n_groups, n_pairs;
    int resume;
    int n_products; /* of one shape; their operands are this far apart: */
    size_t acc_step, a_step, b_step;
    const void *next; /* what is read after this, fetched meanwhile with prefetches, which need no
                         memory there (each product fetches the b of the one behind); NULL: nothing.
                         tile_multiply_amx takes it to lie behind b */
};

/* bf16 from the start of a group of b to a pair. */
static inline size_t tile_pair_at(const struct tile_product *p, int pair)
{
    if (!p->strip_stride)
        return (size_t)pair * p->pair_stride;
    return (size_t)(pair / TILE_STRIP_PAIRS) * p->strip_stride +
           (size_t)(pair % TILE_STRIP_PAIRS) * p->pair_stride;
}

/* Bytes of one b without strips, from its start to its end. */
static inline size_t tile_b_bytes(const struct tile_product *p)
{
    size_t groups = (size_t)p->n_groups * p->group_stride,
           pairs = (size_t)p->n_pairs * p->pair_stride;
    return (groups > pairs ? groups : pairs) * sizeof(bf16);
}

/* Product `index` of them, alone. */
static inline struct tile_product tile_single(const struct tile_product *p, int index)
{
    struct tile_product one = *p;
    one.acc += (size_t)index * p->acc_step;
    one.a += (size_t)index * p->a_step;
    one.b += (size_t)index * p->b_step;
    one.n_products = 1;
    if (index + 1 < p->n_products)
        one.next = one.b + p->b_step;
    return one;
}

typedef void (*tile_multiply)(const struct tile_product *product);

void tile_multiply_portable(const struct tile_product *product);
#if defined(__x86_64__)
void tile_multiply_avx2(const struct tile_product *product);
void tile_multiply_weights_avx2(const struct tile_product *product); /* group_stride TILE_PAIR */
void tile_multiply_avx512bf16(const struct tile_product *product);
void tile_multiply_amx(const struct tile_product *product);
/* As avx512bf16, to the bit; the processors that have AMX read faster when single rows are fetched
 * into the second-level cache alone. */
void tile_multiply_beside_amx(const struct tile_product *product);
#endif

/*
 * How products of a path like their rows. Whoever multiplies the same ones by many b lays them out
 * once for all, as [runs of run_pairs pairs, n_rows, row_bytes]; a product may take some of the
 * runs and rows, or, where a row of a run is one piece of memory, pairs of one run. Its rows begin
 * at a multiple of rows_multiple, and they and their sums have room for a multiple of it
 * (tile_layout_rows()): lay_out fills it with zeros, products write there.
 */
struct tile_layout {
    void (*lay_out)(void *to, const bf16 *a, size_t ld_a, int n_rows, int n_pairs);
    int rows_least; /* fewer are not worth it */
    int rows_multiple;
    int run_pairs;
    size_t row_bytes; /* of a row in a run */
};

/* NULL: rows are best as they are. */
const struct tile_layout *tile_layout_of(enum code_path path);

/* Rows that laid out ones take the room of; layout may be NULL. */
static inline int tile_layout_rows(const struct tile_layout *layout, int n_rows)
{
    int multiple = layout ? layout->rows_multiple : 1;
    return (n_rows + multiple - 1) / multiple * multiple;
}

static inline size_t tile_layout_bytes(const struct tile_layout *layout, int n_rows, int n_pairs)
{
    int n_runs = (n_pairs + layout->run_pairs - 1) / layout->run_pairs;
    return (size_t)(n_runs * tile_layout_rows(layout, n_rows)) * layout->row_bytes;
}

#if defined(__x86_64__)
extern const struct tile_layout tile_layout_avx2; /* f32 */
extern const struct tile_layout tile_layout_amx;  /* tiles without gaps */
#endif

/* Groups of a weight that lie side by side, pair by pair, as products like their b; the next so
 * many lie behind them. TILE_GROUPS_MAX or a part of it. */
int tile_weight_groups(enum code_path path);

/* Where the first (0) or second (1) input of a column of a group lies among the 32 numbers of a
 * pair of a weight: for AVX2 first inputs of four columns, then their second ones, since there one
 * instruction widens the lower or upper half of 128 bits. */
int tile_weight_place(enum code_path path, int column, int input);

/*
 * So many products of n_rows rows with weights, of TILE_GROUPS_MAX groups, are best given at once:
 * their b, which then should be long, are read side by side. 1: each by itself.
 */
int tile_products_abreast(enum code_path path, int n_rows);

/* For products with weights: n_pairs must be a multiple of 16, and b as tile_weight_place(). */
tile_multiply tile_multiply_of(enum code_path path);

/* For any number of pairs: the same, but for AMX, which takes vdpbf16ps here. */
tile_multiply tile_multiply_any_of(enum code_path path);

#endif
