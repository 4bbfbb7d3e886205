/*
 * tile_avx2.c - the tile product with AVX2 and FMA: bf16 is widened to f32, then fused.
 *
 * Weights lie so that one instruction widens eight columns while it loads them
 * (tile_weight_place()); b of other products takes shifts or a mask besides.
 *
 * Pairs go in runs, of which all rows use b before the next. A run fills the first-level cache:
 * what is fetched for the next pushes some of it out to the second, but half as long ones lose more
 * at their borders, where sums are stored and read again. Rows of a are widened before, by the
 * caller or once a run for all columns; the inner loop widens b alone and broadcasts one number a
 * row. Tiles are 4 to 6 rows by 1 group of columns, 3 or 2 by 2, or 1 by 4: 8 to 12 sums hide the
 * latency of FMA and leave room for operands in 16 registers. (3 by 2 need one more; three rows
 * wait for memory, but beside others they go by 1.) One or two rows read b in several streams
 * (struct streams). All shapes run the same chain for an element, so the cut into tiles, runs and
 * strips changes no bit.
 */
#include "kernels/cpu/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2      __attribute__((target("avx2,fma")))
#define AVX2_TILE static inline __attribute__((always_inline)) AVX2

enum {
    ROWS_MAX = 6,
    HALF = 8, /* columns of a register; a group has two */
    HALVES_MAX = 2 * TILE_GROUPS_MAX,
    HELD_MAX = 4,              /* operands of a step that wait in registers */
    PAIRS_A_RUN = 128,         /* 32 KiB of b */
    ABREAST = TILE_STRIPS_MAX, /* streams side by side */
    ROWS_ABREAST_MAX = 2,
    LD_X = 2 * PAIRS_A_RUN, /* numbers from a widened row to the next */
};

/* How the columns of a group and pair lie: side by side, or as weights; of a whole panel of those,
 * with sums of its own, every distance is a constant. */
enum order { ORDER_PLAIN, ORDER_WEIGHTS, ORDER_PANEL, N_ORDERS };

/* Rows and groups of a product that fit into registers, over the pairs of a run; n_tiles of them
 * side by side. */
struct tile {
    int n_tiles;
    float *acc;
    const float *x; /* [rows, LD_X] */
    const bf16 *b;
    size_t ld_acc, group_stride, pair_stride;
    int n_pairs, resume;
    const char *prefetch; /* a line for each group of the tile is fetched from here a pair, */
    size_t prefetch_step; /* then it goes on by so many bytes, */
    size_t prefetch_tile; /* from a tile to the next by so many */
};

AVX2_TILE void set_distances(struct tile *t, const enum order order)
{
    if (order != ORDER_PLAIN)
        t->group_stride = TILE_PAIR;
    if (order == ORDER_PANEL) {
        t->pair_stride = TILE_GROUPS_MAX * TILE_PAIR;
        t->ld_acc = TILE_COLUMNS;
    }
}

/* sum += w * number, where it stands: left to itself the compiler moves broadcasts ahead, and sums
 * out of their registers. */
AVX2_TILE void fuse(__m256 *sum, __m256 w, __m256 number)
{
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(*sum) : "x"(w), "x"(number));
}

/* The first (0) or second (1) input of a pair for the columns of half h. masked: with a constant
 * that takes a register, instead of a second shift. */
AVX2_TILE __m256 widen(const struct tile *t, const bf16 *b, int h, const int second,
                       const int masked, const enum order order)
{
    const bf16 *words = b + (size_t)(h / 2) * t->group_stride + h % 2 * 2 * HALF;
    __m256i both = _mm256_load_si256((const __m256i *)words), zero = _mm256_setzero_si256();
    if (order != ORDER_PLAIN)
        return _mm256_castsi256_ps(second ? _mm256_unpackhi_epi16(zero, both)
                                          : _mm256_unpacklo_epi16(zero, both));
    if (second && masked)
        return _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000u)));
    if (second)
        both = _mm256_srli_epi32(both, 16);
    return _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
}

/* One input of a pair. The shorter side's operands are held, the other's pass by. */
AVX2_TILE void accumulate(__m256 sum[ROWS_MAX][HALVES_MAX], const struct tile *t, const float *x,
                          const bf16 *b, const int second, const int rows, const int halves,
                          const enum order order)
{
    __m256 held[HELD_MAX];
    if (rows < halves) {
        const int masked = rows < 3;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            held[r] = _mm256_broadcast_ss(x + r * LD_X + second);
#pragma GCC unroll 8
        for (int h = 0; h < halves; h++) {
            __m256 w = widen(t, b, h, second, masked, order);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                fuse(&sum[r][h], w, held[r]);
        }
        return;
    }
#pragma GCC unroll 4
    for (int h = 0; h < halves; h++)
        held[h] = widen(t, b, h, second, 1, order);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m256 number = _mm256_broadcast_ss(x + r * LD_X + second);
#pragma GCC unroll 4
        for (int h = 0; h < halves; h++)
            fuse(&sum[r][h], held[h], number);
    }
}

AVX2_TILE void load_sums(__m256 sum[ROWS_MAX][HALVES_MAX], const struct tile *t, const int rows,
                         const int halves)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int h = 0; h < halves; h++)
            sum[r][h] = t->resume ? _mm256_loadu_ps(t->acc + (size_t)r * t->ld_acc + h * HALF)
                                  : _mm256_setzero_ps();
}

AVX2_TILE void store_sums(__m256 sum[ROWS_MAX][HALVES_MAX], const struct tile *t, const int rows,
                          const int halves)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int h = 0; h < halves; h++)
            _mm256_storeu_ps(t->acc + (size_t)r * t->ld_acc + h * HALF, sum[r][h]);
}

/* All but the tiles are constants at every call: each call is a kernel of its own. */
AVX2_TILE void multiply(const struct tile *tiles, const int rows, const int groups,
                        const enum order order, const int fetches)
{
    struct tile t = *tiles;
    const int halves = 2 * groups;
    set_distances(&t, order);
    for (int i = 0; i < t.n_tiles; i++, t.acc += groups * TILE_GROUP) {
        __m256 sum[ROWS_MAX][HALVES_MAX];
        const char *prefetch = t.prefetch + (size_t)i * t.prefetch_tile;
        const bf16 *b = t.b + (size_t)(i * groups) * t.group_stride;
        load_sums(sum, &t, rows, halves);
        for (const float *x = t.x, *end = x + 2 * t.n_pairs; x < end; x += 2) {
#pragma GCC unroll 4
            for (int line = 0; fetches && line < groups; line++)
                _mm_prefetch(prefetch + (size_t)line * t.group_stride * sizeof(bf16), _MM_HINT_T0);
            accumulate(sum, &t, x, b, 0, rows, halves, order);
            accumulate(sum, &t, x, b, 1, rows, halves, order);
            b += t.pair_stride;
            prefetch += t.prefetch_step;
        }
        store_sums(sum, &t, rows, halves);
    }
}

/*
 * The same for 3 to 6 rows by 1 group. The sums are bound to registers: with 12 of them, a constant
 * and three operands the compiler finds no place for one, and a processor whose other hyperthread
 * works feels every instruction.
 *
 * Two pairs fetch one line, or where these rows are all there are both that they use up: side by
 * side they come faster than one a pair. Four pairs go in a round.
 */
/* clang-format off */
#define ROW_SUMS(what, input, r, low, high) what(input, r, 0, low) what(input, r, 1, high)
#define FOR_EACH_SUM(what, input)                                                                  \
    ROW_SUMS(what, input, 0, "ymm0", "ymm1") ROW_SUMS(what, input, 1, "ymm2", "ymm3")              \
    ROW_SUMS(what, input, 2, "ymm4", "ymm5") ROW_SUMS(what, input, 3, "ymm6", "ymm7")              \
    ROW_SUMS(what, input, 4, "ymm8", "ymm9") ROW_SUMS(what, input, 5, "ymm10", "ymm11")
/* clang-format on */
#define BIND_SUM(input, r, h, name)                                                                \
    register __m256 sum_##r##_##h __asm__(name) = r < rows ? sum[r][h] : _mm256_setzero_ps();
#define FREE_SUM(input, r, h, name)                                                                \
    if (r < rows)                                                                                  \
        sum[r][h] = sum_##r##_##h;
#define FUSE_SUM(input, r, h, name)                                                                \
    if (r < rows) {                                                                                \
        if (h == 0)                                                                                \
            __asm__ volatile("vbroadcastss %1, %0" : "=x"(number) : "m"(x[r * LD_X + (input)]));   \
        __asm__ volatile("vfmadd231ps %2, %1, %0"                                                  \
                         : "+x"(sum_##r##_##h)                                                     \
                         : "x"(w_##h), "x"(number));                                               \
    }
#define WIDEN(instructions, h, pair)                                                               \
    __asm__ volatile(instructions                                                                  \
                     : "=x"(w_##h)                                                                 \
                     : "m"(*(const __m256i *)(b + (pair)*t.pair_stride + h * 2 * HALF)),           \
                       "x"(constant))
#define WIDEN_BOTH(weights, plain, pair)                                                           \
    if (order != ORDER_PLAIN) {                                                                    \
        WIDEN(weights " %1, %2, %0", 0, pair);                                                     \
        WIDEN(weights " %1, %2, %0", 1, pair);                                                     \
    } else {                                                                                       \
        WIDEN(plain, 0, pair);                                                                     \
        WIDEN(plain, 1, pair);                                                                     \
    }
#define FUSE_PAIR(pair)                                                                            \
    WIDEN_BOTH("vpunpcklwd", "vmovdqa %1, %0\n\tvpslld $16, %0, %0", pair)                         \
    FOR_EACH_SUM(FUSE_SUM, 2 * (pair))                                                             \
    WIDEN_BOTH("vpunpckhwd", "vpand %1, %2, %0", pair)                                             \
    FOR_EACH_SUM(FUSE_SUM, 2 * (pair) + 1)

#define FETCH(pair)                                                                                \
    _mm_prefetch(prefetch + (pair)*t.prefetch_step, _MM_HINT_T0);                                  \
    if (lines == 2)                                                                                \
        _mm_prefetch(prefetch + (pair)*t.prefetch_step + 64, _MM_HINT_T0);

AVX2_TILE void multiply_bound(const struct tile *tiles, const int rows, const enum order order,
                              const int lines)
{
    struct tile t = *tiles;
    const __m256i constant = _mm256_set1_epi32(order == ORDER_PLAIN ? (int)0xffff0000u : 0);
    set_distances(&t, order);
    for (int i = 0; i < t.n_tiles; i++, t.acc += TILE_GROUP) {
        __m256 sum[ROWS_MAX][HALVES_MAX], w_0, w_1, number;
        const float *x = t.x;
        const bf16 *b = t.b + (size_t)i * t.group_stride;
        const char *prefetch = t.prefetch + (size_t)i * t.prefetch_tile;
        load_sums(sum, &t, rows, 2);
        FOR_EACH_SUM(BIND_SUM, 0) /* no call may come until they are free again */
        for (int rounds = t.n_pairs / 4; rounds > 0; rounds--) {
            FETCH(0)
            FUSE_PAIR(0)
            FUSE_PAIR(1)
            FETCH(2)
            FUSE_PAIR(2)
            FUSE_PAIR(3)
            prefetch += 4 * t.prefetch_step;
            x += 8;
            b += 4 * t.pair_stride;
        }
        for (int left = t.n_pairs % 4; left > 0; left--) {
            FUSE_PAIR(0)
            x += 2;
            b += t.pair_stride;
        }
        FOR_EACH_SUM(FREE_SUM, 0)
        store_sums(sum, &t, rows, 2);
    }
}

#define KERNEL(rows, groups)                                                                       \
    AVX2 static void plain_##rows##_##groups(const struct tile *t)                                 \
    {                                                                                              \
        multiply(t, rows, groups, ORDER_PLAIN, 1);                                                 \
    }                                                                                              \
    AVX2 static void weights_##rows##_##groups(const struct tile *t)                               \
    {                                                                                              \
        multiply(t, rows, groups, ORDER_WEIGHTS, 1);                                               \
    }                                                                                              \
    AVX2 static void panel_##rows##_##groups(const struct tile *t)                                 \
    {                                                                                              \
        multiply(t, rows, groups, ORDER_PANEL, 1);                                                 \
    }
KERNEL(1, 1)
KERNEL(1, 2)
KERNEL(1, 4)
KERNEL(2, 1)
KERNEL(2, 2)
KERNEL(3, 1)
KERNEL(3, 2)

/* alone: the only tile of rows. */
#define BOUND_KERNEL(rows, name, lines)                                                            \
    AVX2 static void plain_##name##_##rows(const struct tile *t)                                   \
    {                                                                                              \
        multiply_bound(t, rows, ORDER_PLAIN, lines);                                               \
    }                                                                                              \
    AVX2 static void weights_##name##_##rows(const struct tile *t)                                 \
    {                                                                                              \
        multiply_bound(t, rows, ORDER_WEIGHTS, lines);                                             \
    }                                                                                              \
    AVX2 static void panel_##name##_##rows(const struct tile *t)                                   \
    {                                                                                              \
        multiply_bound(t, rows, ORDER_PANEL, lines);                                               \
    }
BOUND_KERNEL(4, alone, 2)
BOUND_KERNEL(5, alone, 2)
BOUND_KERNEL(6, alone, 2)
BOUND_KERNEL(3, beside, 1)
BOUND_KERNEL(4, beside, 1)
BOUND_KERNEL(5, beside, 1)
BOUND_KERNEL(6, beside, 1)

typedef void (*kernel)(const struct tile *t);

/* For each number of rows: kernels of 1, 2 and 4 groups, as far as their sums fit. Of several tiles
 * of rows each has at least 3. */
enum { WIDTHS = 3 };
/* clang-format off */
#define TABLE_ALONE(order)                                                                         \
    {{order##_1_1, order##_1_2, order##_1_4}, {order##_2_1, order##_2_2},                          \
     {order##_3_1, order##_3_2}, {order##_alone_4}, {order##_alone_5}, {order##_alone_6}}
#define TABLE_BESIDE(order)                                                                        \
    {[2] = {order##_beside_3}, [3] = {order##_beside_4}, [4] = {order##_beside_5},                 \
     [5] = {order##_beside_6}}
/* clang-format on */
static const kernel alone[N_ORDERS][ROWS_MAX][WIDTHS] = {TABLE_ALONE(plain), TABLE_ALONE(weights),
                                                         TABLE_ALONE(panel)};
static const kernel beside[N_ORDERS][ROWS_MAX][WIDTHS] = {
    TABLE_BESIDE(plain), TABLE_BESIDE(weights), TABLE_BESIDE(panel)};

/* To f32: run after run, in each a row after the other. */
AVX2 static void widen_rows(void *to, const bf16 *a, size_t ld_a, int n_rows, int n_pairs)
{
    float *wide = to;
    for (int first = 0; first < 2 * n_pairs; first += LD_X) {
        int n = 2 * n_pairs - first < LD_X ? 2 * n_pairs - first : LD_X;
        for (int r = 0; r < n_rows; r++, wide += LD_X) {
            const bf16 *row = a + (size_t)r * ld_a + first;
            int i = 0;
            for (; i + HALF <= n; i += HALF) {
                __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(row + i)));
                _mm256_storeu_ps(wide + i, _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)));
            }
            for (; i < n; i++)
                wide[i] = bf16_to_f32(row[i]);
        }
    }
}

const struct tile_layout tile_layout_avx2 = {widen_rows, 4, 1, PAIRS_A_RUN, LD_X * sizeof(float)};

/* The columns of the rows from `first` on, in tiles as wide as they may be. */
AVX2_TILE void multiply_rows(const struct tile_product *p, enum order order, struct tile t,
                             int first, int rows, int n_row_tiles)
{
    const kernel *of_rows = n_row_tiles > 1 ? beside[order][rows - 1] : alone[order][rows - 1];
    const bf16 *b = t.b;
    const int apart = p->group_stride > TILE_PAIR;
    for (int group = 0, width = WIDTHS - 1; group < p->n_groups;) {
        while (!of_rows[width] || group + (1 << width) > p->n_groups)
            width--;
        t.n_tiles = (p->n_groups - group) >> width;
        t.acc = p->acc + (size_t)first * p->ld_acc + (size_t)group * TILE_GROUP;
        t.b = b + (size_t)group * p->group_stride;
        /* All tiles of a run together fetch the next one. */
        t.prefetch_step = p->next ? (size_t)(apart ? 64 : 64 << width) / (size_t)n_row_tiles : 0;
        t.prefetch_tile =
            apart ? p->group_stride * sizeof(bf16) << width : t.prefetch_step * (size_t)t.n_pairs;
        of_rows[width](&t);
        t.prefetch += t.prefetch_tile * (size_t)t.n_tiles;
        group += t.n_tiles << width;
    }
}

/* Of the run that begins with a pair. */
static int run_pairs(const struct tile_product *p, int pair)
{
    return p->n_pairs - pair < PAIRS_A_RUN ? p->n_pairs - pair : PAIRS_A_RUN;
}

AVX2_TILE void multiply_run(const struct tile_product *p, enum order order, int pair, int n_pairs)
{
    float x[ROWS_MAX * LD_X];
    const int n_row_tiles = (p->n_rows + ROWS_MAX - 1) / ROWS_MAX,
              last = pair + n_pairs == p->n_pairs,
              strip = p->strip_stride ? TILE_STRIP_PAIRS : n_pairs;
    const char *next =
        last && p->next ? p->next : (const char *)(p->b + tile_pair_at(p, pair + n_pairs));
    const size_t next_step = p->group_stride > TILE_PAIR ? 64 : 64 * (size_t)p->n_groups;
    struct tile t = {
        .ld_acc = p->ld_acc, .group_stride = p->group_stride, .pair_stride = p->pair_stride};
    for (int i = 0; i < n_row_tiles; i++) {
        int first = p->n_rows * i / n_row_tiles, rows = p->n_rows * (i + 1) / n_row_tiles - first;
        const float *wide = x;
        if (p->laid_out)
            wide = (const float *)p->laid_out +
                   (size_t)(pair / PAIRS_A_RUN) * (p->laid_out_run / sizeof(float)) +
                   (size_t)first * LD_X;
        else
            widen_rows(x, p->a + (size_t)first * p->ld_a + 2 * pair, p->ld_a, rows, n_pairs);
        for (int at = 0; at < n_pairs; at += strip) {
            t.n_pairs = n_pairs - at < strip ? n_pairs - at : strip;
            t.x = wide + 2 * at;
            t.b = p->b + tile_pair_at(p, pair + at);
            t.resume = p->resume || pair + at > 0;
            t.prefetch = next + tile_pair_at(p, at) * sizeof(bf16) +
                         next_step * (size_t)(t.n_pairs * i / n_row_tiles);
            multiply_rows(p, order, t, first, rows, n_row_tiles);
        }
    }
}

/*
 * One or two rows wait for memory alone, and a processor that fetches ahead by itself does so for
 * every stream that it sees: b is read in up to ABREAST streams, a few lines of each in turn, in
 * the order in which they lie. Instructions that fetch would only hide the streams from it.
 */
struct streams {
    const struct tile_product *p;
    float x[ABREAST][ROWS_ABREAST_MAX * LD_X]; /* widened rows */
    struct tile pieces[ABREAST];               /* what each has next */
    int n_pairs[ABREAST];                      /* of it */
    int n, n_pairs_max;
};

AVX2_TILE void begin_streams(struct streams *s, const struct tile_product *p)
{
    s->p = p;
    s->n = s->n_pairs_max = 0;
}

/* x: the widened rows of these pairs. */
AVX2_TILE void add_piece(struct streams *s, int product, int group, int pair, int n_pairs,
                         const float *x)
{
    const struct tile_product *p = s->p;
    s->pieces[s->n] =
        (struct tile){.acc = p->acc + (size_t)product * p->acc_step + group * TILE_GROUP,
                      .x = x,
                      .b = p->b + (size_t)product * p->b_step + (size_t)group * p->group_stride +
                           tile_pair_at(p, pair),
                      .ld_acc = p->ld_acc,
                      .group_stride = p->group_stride,
                      .pair_stride = p->pair_stride,
                      .resume = p->resume || pair > 0};
    s->n_pairs[s->n++] = n_pairs;
    s->n_pairs_max = s->n_pairs_max > n_pairs ? s->n_pairs_max : n_pairs;
}

/* `step` pairs of each piece in turn; then there are none. */
AVX2_TILE void walk_pieces(struct streams *s, int n_tiles, const int step, const int rows,
                           const int groups, const enum order order)
{
    for (int at = 0; at < s->n_pairs_max; at += step)
        for (int i = 0; i < s->n; i++) {
            struct tile *piece = &s->pieces[i];
            int left = s->n_pairs[i] - at;
            if (left <= 0)
                continue;
            piece->n_tiles = n_tiles;
            piece->n_pairs = left < step ? left : step;
            multiply(piece, rows, groups, order, 0);
            piece->x += 2 * step;
            piece->b += (size_t)step * piece->pair_stride;
            piece->resume = 1;
        }
    s->n = s->n_pairs_max = 0;
}

/* A panel each; where two tiles of a pair lie side by side, each pair is a turn. */
AVX2_TILE void walk_panels(struct streams *s, const int rows, const enum order order)
{
    if (rows == 1)
        walk_pieces(s, 1, 2, rows, TILE_GROUPS_MAX, order);
    else
        walk_pieces(s, 2, 1, rows, TILE_GROUPS_MAX / 2, order);
}

AVX2_TILE void widen_product(struct streams *s, int place, int product, int pair, int n_pairs,
                             const int rows)
{
    const struct tile_product *p = s->p;
    widen_rows(s->x[place], p->a + (size_t)product * p->a_step + 2 * (size_t)pair, p->ld_a, rows,
               n_pairs);
}

/* A stream runs through every n-th product. */
AVX2_TILE void multiply_products_abreast(const struct tile_product *p, const int rows,
                                         const enum order order)
{
    struct streams s;
    begin_streams(&s, p);
    const int apart = (p->n_products + ABREAST - 1) / ABREAST;
    for (int first = 0; first < apart; first++)
        for (int pair = 0; pair < p->n_pairs; pair += PAIRS_A_RUN) {
            int n_pairs = run_pairs(p, pair);
            for (int i = first, place = 0; i < p->n_products; i += apart) {
                if (i == first || p->a_step)
                    widen_product(&s, place = i / apart, i, pair, n_pairs, rows);
                add_piece(&s, i, 0, pair, n_pairs, s.x[place]);
            }
            walk_panels(&s, rows, order);
        }
}

/* A stream runs through one group of all products. */
AVX2_TILE void multiply_groups_abreast(const struct tile_product *p, const int rows)
{
    struct streams s;
    begin_streams(&s, p);
    for (int i = 0; i < p->n_products; i++)
        for (int pair = 0; pair < p->n_pairs; pair += PAIRS_A_RUN) {
            int n_pairs = run_pairs(p, pair);
            widen_product(&s, 0, i, pair, n_pairs, rows);
            for (int group = 0; group < p->n_groups; group++)
                add_piece(&s, i, group, pair, n_pairs, s.x[0]);
            walk_pieces(&s, 1, 4, rows, 1, ORDER_PLAIN);
        }
}

/* A stream runs through one strip of all products, each a product behind the one before: the sums
 * of a product go through its strips in order. */
AVX2_TILE void multiply_strips_abreast(const struct tile_product *p, const int rows)
{
    struct streams s;
    begin_streams(&s, p);
    const int n_strips = (p->n_pairs + TILE_STRIP_PAIRS - 1) / TILE_STRIP_PAIRS;
    for (int first = 0; first < p->n_products + n_strips - 1; first++) {
        if (first < p->n_products)
            widen_product(&s, first % ABREAST, first, 0, p->n_pairs, rows);
        for (int strip = 0; strip < n_strips; strip++) {
            int i = first - strip, pair = strip * TILE_STRIP_PAIRS, left = p->n_pairs - pair;
            if (i >= 0 && i < p->n_products)
                add_piece(&s, i, 0, pair, left < TILE_STRIP_PAIRS ? left : TILE_STRIP_PAIRS,
                          s.x[i % ABREAST] + 2 * pair);
        }
        walk_panels(&s, rows, ORDER_PLAIN);
    }
}

/* One or two rows; 0: not these. */
AVX2_TILE int multiply_abreast(const struct tile_product *p, const int rows, const enum order order)
{
    if (order == ORDER_PLAIN && p->group_stride > TILE_PAIR)
        multiply_groups_abreast(p, rows);
    else if (p->n_products == 1 || p->n_groups < TILE_GROUPS_MAX)
        return 0;
    else if (order == ORDER_PLAIN && p->strip_stride)
        multiply_strips_abreast(p, rows);
    else
        multiply_products_abreast(p, rows, order);
    return 1;
}

AVX2_TILE void multiply_all(const struct tile_product *product, const enum order order)
{
    if (product->n_rows == 1 && multiply_abreast(product, 1, order))
        return;
    if (product->n_rows == 2 && multiply_abreast(product, 2, order))
        return;
    for (int i = 0; i < product->n_products; i++) {
        struct tile_product p = tile_single(product, i);
        for (int pair = 0; pair < p.n_pairs; pair += PAIRS_A_RUN)
            multiply_run(&p, order, pair, run_pairs(&p, pair));
    }
}

AVX2 void tile_multiply_avx2(const struct tile_product *product)
{
    multiply_all(product, ORDER_PLAIN);
}

AVX2 void tile_multiply_weights_avx2(const struct tile_product *product)
{
    if (product->pair_stride == TILE_GROUPS_MAX * TILE_PAIR && product->ld_acc == TILE_COLUMNS)
        multiply_all(product, ORDER_PANEL);
    else
        multiply_all(product, ORDER_WEIGHTS);
}
#endif
