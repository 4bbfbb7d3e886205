/*
 * device_test.c - goal: each operation on the CUDA device (or the simulated one) agrees with its
 * f32 twin on odd sizes, and gives a row the same bits alone, among others and in pieces. Skipped
 * where the build or the machine has no device.
 *
 * Tolerances: f32 sums differ in order alone, so 2e-5 of the size of the result; bf16 keeps 8 bits,
 * and intermediate roundings (weights of attention) add up, so 2e-2. The last test shows that they
 * are small enough to notice a wrong eps.
 */
#include "kernels/device_test_tools.h"

#include <stdbool.h>

#include "kernels/add.h"
#include "kernels/attention.h"
#include "kernels/embedding.h"
#include "kernels/finite.h"
#include "kernels/linear.h"
#include "kernels/rmsnorm.h"
#include "kernels/silu_mul.h"

static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};

static float *device_rmsnorm(struct stream *device, const float *x, const float *delta,
                             const float *weight, enum dtype dtype, int n_rows, int hidden,
                             float eps)
{
    size_t n = (size_t)n_rows * (size_t)hidden;
    struct array dx = to_device(device, x, n, dtype), dy = to_device(device, NULL, n, dtype);
    struct array dw = to_device(device, weight, (size_t)hidden, DTYPE_F32);
    struct array dd = to_device(device, delta, n, dtype);
    if (delta)
        assert_int_equal(add_rmsnorm(dy.memory, dx.memory, dd.memory, dw.memory, dtype, n_rows,
                                     hidden, eps, device),
                         STATUS_OK);
    else
        assert_int_equal(
            rmsnorm(dy.memory, dx.memory, dw.memory, dtype, n_rows, hidden, eps, device),
            STATUS_OK);
    float *y = from_device(&dy);
    drop(&dx);
    drop(&dw);
    drop(&dd);
    return y;
}

static void test_rmsnorm(void **state)
{
    (void)state;
    static const int widths[] = {1, 7, 8, 64, 250, 2056};
    struct stream *device = open_device(), *twin = twin_stream();
    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
        for (int t = 0; t < 4; t++) {
            int hidden = widths[i], n_rows = 3;
            size_t n = (size_t)n_rows * (size_t)hidden;
            float *x = test_numbers(n, 2, 1), *delta = test_numbers(n, 1, 2),
                  *w = test_numbers((size_t)hidden, 1, 3);
            float *want = malloc(n * sizeof(*want)), *copy = malloc(n * sizeof(*copy));
            memcpy(copy, x, n * sizeof(*copy));
            bool with_delta = t >= 2;
            if (with_delta)
                add_rmsnorm(want, copy, delta, w, DTYPE_F32, n_rows, hidden, 1e-5f, twin);
            else
                rmsnorm(want, copy, w, DTYPE_F32, n_rows, hidden, 1e-5f, twin);
            float *got = device_rmsnorm(device, x, with_delta ? delta : NULL, w, dtypes[t % 2],
                                        n_rows, hidden, 1e-5f);
            assert_close("rmsnorm", dtypes[t % 2], got, want, n);
            free(x), free(delta), free(w), free(want), free(copy);
        }
    stream_destroy(device);
    stream_destroy(twin);
}

static void test_add_silu_embedding(void **state)
{
    (void)state;
    static const int widths[] = {1, 13, 64, 264};
    struct stream *device = open_device(), *twin = twin_stream();
    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
        for (int t = 0; t < 2; t++) {
            int width = widths[i], n_rows = 5;
            enum dtype dtype = dtypes[t];
            size_t n = (size_t)n_rows * (size_t)width;
            float *x = test_numbers(2 * n, 4, 5), *y = test_numbers(n, 4, 6),
                  *want = malloc(2 * n * sizeof(*want));
            static const int32_t ids[] = {4, 0, 2, 2, 9};
            struct array dx = to_device(device, x, n, dtype), dy = to_device(device, y, n, dtype);
            memcpy(want, x, n * sizeof(*want));
            add(want, y, DTYPE_F32, n_rows, width, twin);
            assert_int_equal(add(dx.memory, dy.memory, dtype, n_rows, width, device), STATUS_OK);
            assert_close("add", dtype, from_device(&dx), want, n);

            struct array gate_up = to_device(device, x, 2 * n, dtype);
            silu_mul(want, x, DTYPE_F32, n_rows, width, twin);
            assert_int_equal(silu_mul(dy.memory, gate_up.memory, dtype, n_rows, width, device),
                             STATUS_OK);
            assert_close("silu_mul", dtype, from_device(&dy), want, n);

            struct array rows = to_device(device, NULL, n, dtype);
            embedding(want, ids, x, DTYPE_F32, n_rows, width, 10, twin);
            assert_int_equal(
                embedding(rows.memory, ids, gate_up.memory, dtype, n_rows, width, 10, device),
                STATUS_OK);
            assert_close("embedding", dtype, from_device(&rows), want, n);
            assert_int_equal(
                embedding(gate_up.memory, ids, gate_up.memory, dtype, n_rows, width, 9, device),
                STATUS_INVALID);
            drop(&gate_up);
            free(x), free(y), free(want);
        }
    stream_destroy(device);
    stream_destroy(twin);
}

/* x of products: the rows behind n_rows that a device multiplies too are NaN. */
static struct array rows_to_device(struct stream *stream, const float *x, int n_rows, int width,
                                   enum dtype dtype)
{
    size_t n = (size_t)n_rows * (size_t)width,
           room = (size_t)linear_padded_rows(n_rows, stream) * (size_t)width;
    float *padded = malloc(room * sizeof(*padded));
    for (size_t i = 0; i < room; i++)
        padded[i] = x && i < n ? x[i] : NAN;
    struct array array = to_device(stream, padded, room, dtype);
    free(padded);
    array.n = n;
    return array;
}

static struct linear_weight *make_weight(struct stream *stream, const float *w, const float *bias,
                                         int n_out, int n_in, enum dtype dtype)
{
    struct linear_weight_options options = {n_out, n_in, dtype, bias != NULL};
    struct linear_weight *weight;
    struct error err;
    if (linear_weight_create(&weight, &options, stream, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    int split = n_out / 3;
    linear_weight_set(weight, split, n_out - split, w + (size_t)split * (size_t)n_in, DTYPE_F32);
    linear_weight_set(weight, 0, split, w, DTYPE_F32);
    if (bias)
        linear_weight_set_bias(weight, 0, n_out, bias, DTYPE_F32);
    return weight;
}

static void test_linear(void **state)
{
    (void)state;
    static const struct {
        int n_out, n_in, n_rows, bias;
    } cases[] = {{1, 8, 1, 0}, {33, 24, 5, 1}, {130, 64, 70, 0}, {64, 176, 3, 1}};
    struct stream *device = open_device(), *twin = twin_stream();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int t = 0; t < 2; t++) {
            int n_out = cases[i].n_out, n_in = cases[i].n_in, n_rows = cases[i].n_rows,
                first = n_out / 2;
            enum dtype dtype = dtypes[t];
            size_t n = (size_t)n_rows * (size_t)n_out;
            float *w = test_numbers((size_t)n_out * (size_t)n_in, 1, 7),
                  *x = test_numbers((size_t)n_rows * (size_t)n_in, 1, 8);
            float *bias = test_numbers((size_t)n_out, 1, 9), *want = malloc(n * sizeof(*want));
            struct linear_weight *twin_weight =
                make_weight(twin, w, cases[i].bias ? bias : NULL, n_out, n_in, DTYPE_F32);
            struct linear_weight *weight =
                make_weight(device, w, cases[i].bias ? bias : NULL, n_out, n_in, dtype);
            struct array dx = rows_to_device(device, x, n_rows, n_in, dtype),
                         dy = rows_to_device(device, NULL, n_rows, n_out, dtype),
                         range = rows_to_device(device, NULL, n_rows, n_out, DTYPE_F32);
            assert_int_equal(linear_prepare_range(weight, n_out - first, NULL), STATUS_OK);
            linear(want, x, twin_weight, n_rows, twin);
            assert_int_equal(linear(dy.memory, dx.memory, weight, n_rows, device), STATUS_OK);
            assert_close("linear", dtype, from_device(&dy), want, n);
            linear_range_f32(want, x, twin_weight, first, n_out - first, n_rows, twin);
            range.n = (size_t)n_rows * (size_t)(n_out - first);
            assert_int_equal(linear_range_f32(range.memory, dx.memory, weight, first, n_out - first,
                                              n_rows, device),
                             STATUS_OK);
            assert_close("linear_range_f32", DTYPE_F32, from_device(&range), want,
                         (size_t)n_rows * (size_t)(n_out - first));
            drop(&dx);
            linear_weight_destroy(weight);
            linear_weight_destroy(twin_weight);
            free(w), free(x), free(bias), free(want);
        }
    stream_destroy(device);
    stream_destroy(twin);
}

/* Rows [first, first + n) of x, as the device gives them. */
static float *multiply_rows(const struct linear_weight *weight, struct stream *device,
                            const float *x, int first, int n, int n_in, int n_out, enum dtype dtype)
{
    struct array dx = rows_to_device(device, x + (size_t)first * (size_t)n_in, n, n_in, dtype),
                 dy = rows_to_device(device, NULL, n, n_out, dtype);
    assert_int_equal(linear(dy.memory, dx.memory, weight, n, device), STATUS_OK);
    drop(&dx);
    return from_device(&dy);
}

/* A row has the same bits in products of all sizes, more than one product's rows included. */
static void test_linear_rows(void **state)
{
    (void)state;
    enum { N_OUT = 40, N_IN = 72, ROWS = 300 };
    static const int sizes[] = {1, 2, 3, 31, 64, 65, 129, 256, 257};
    struct stream *device = open_device();
    float *w = test_numbers(N_OUT * N_IN, 1, 10), *x = test_numbers(ROWS * N_IN, 1, 11);
    for (int t = 0; t < 2; t++) {
        struct linear_weight *weight = make_weight(device, w, NULL, N_OUT, N_IN, dtypes[t]);
        float *whole = multiply_rows(weight, device, x, 0, ROWS, N_IN, N_OUT, dtypes[t]);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            int n = sizes[i], first = ROWS - n;
            float *part = multiply_rows(weight, device, x, first, n, N_IN, N_OUT, dtypes[t]);
            assert_memory_equal(part, whole + (size_t)first * N_OUT,
                                (size_t)n * N_OUT * sizeof(*part));
            free(part);
        }
        linear_weight_destroy(weight);
        free(whole);
    }
    free(w), free(x);
    stream_destroy(device);
}

/* Only products that were prepared are done: choosing takes time and memory. */
static void test_unprepared_range(void **state)
{
    (void)state;
    struct stream *device = open_device();
    float *w = test_numbers(12 * 8, 1, 12);
    struct linear_weight *weight = make_weight(device, w, NULL, 12, 8, DTYPE_BF16);
    struct array x = rows_to_device(device, NULL, 1, 8, DTYPE_BF16),
                 y = rows_to_device(device, NULL, 1, 5, DTYPE_F32);
    struct error err;
    assert_int_equal(linear_range_f32(y.memory, x.memory, weight, 3, 5, 1, device),
                     STATUS_INTERNAL);
    assert_int_equal(stream_wait(device, &err), STATUS_INTERNAL);
    assert_non_null(strstr(err.text, "prepared"));
    linear_weight_destroy(weight);
    drop(&x), drop(&y);
    free(w);
    stream_destroy(device);
}

/* ---- attention: two sequences, in chunks, on shuffled blocks ---- */

enum { BLOCKS = 24, POSITIONS = 700 };

struct sequence_case {
    int n_heads, n_kv_heads, head_dim;
};

struct cache {
    struct stream *stream;
    struct kv_layer layer;
    struct rope_table *rope;
    size_t bytes;
    int32_t blocks[2][BLOCKS / 2];
    struct array norms[4];
};

static void open_cache(struct cache *c, struct stream *stream, const struct attention_shape *shape)
{
    struct rope_options rope = {POSITIONS, shape->head_dim, 10000, 2};
    c->stream = stream;
    c->layer.n_blocks = BLOCKS;
    c->bytes = BLOCKS * kv_block_bytes(shape);
    assert_int_equal(stream_alloc(stream, &c->layer.pool, c->bytes, NULL), STATUS_OK);
    char *nan = malloc(c->bytes);
    memset(nan, 0xff, c->bytes); /* what was not stored must not be used */
    stream_upload(stream, c->layer.pool, nan, c->bytes);
    free(nan);
    assert_int_equal(rope_table_create(&c->rope, &rope, stream, NULL), STATUS_OK);
    for (int i = 0; i < BLOCKS; i++)
        c->blocks[i % 2][i / 2] = i * 7 % BLOCKS;
    for (int i = 0; i < 4; i++) {
        size_t n = (size_t)(i < 2 ? shape->n_heads : shape->n_kv_heads) * (size_t)shape->head_dim;
        float *x = test_numbers(n, 1, 20 + (uint64_t)i);
        c->norms[i] = to_device(stream, x, n, DTYPE_F32);
        free(x);
    }
}

static void close_cache(struct cache *c)
{
    stream_free(c->stream, c->layer.pool, c->bytes);
    rope_table_destroy(c->rope);
    for (int i = 0; i < 4; i++)
        drop(&c->norms[i]);
}

/* Rows of sequence 0 from starts[0], then of sequence 1; qkv: all rows of both, sequence after
 * sequence. Returns y. */
static float *step(struct cache *c, const struct attention_shape *shape, const float *qkv,
                   int length, const int starts[2], const int n_rows[2], enum dtype dtype)
{
    size_t row = (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * (size_t)shape->head_dim;
    size_t n = (size_t)(n_rows[0] + n_rows[1]);
    float *rows = malloc(n * row * sizeof(*rows));
    memcpy(rows, qkv + (size_t)starts[0] * row, (size_t)n_rows[0] * row * sizeof(*rows));
    memcpy(rows + (size_t)n_rows[0] * row, qkv + (size_t)(length + starts[1]) * row,
           (size_t)n_rows[1] * row * sizeof(*rows));
    struct attention_shape typed = *shape;
    typed.dtype = dtype;
    struct array x = to_device(c->stream, rows, n * row, dtype);
    struct array y =
        to_device(c->stream, NULL, n * (size_t)(shape->n_heads * shape->head_dim), dtype);
    struct qk_norm norm = {c->norms[0].memory, c->norms[1].memory, c->norms[2].memory,
                           c->norms[3].memory, 1e-5f};
    struct kv_segment segments[2];
    int n_segments = 0;
    for (int s = 0; s < 2; s++)
        if (n_rows[s] > 0)
            segments[n_segments++] =
                (struct kv_segment){c->blocks[s], starts[s], n_rows[s], s ? n_rows[0] : 0};
    assert_int_equal(attention(y.memory, x.memory, &typed, &norm, c->rope, segments, n_segments,
                               &c->layer, c->stream),
                     STATUS_OK);
    drop(&x);
    free(rows);
    return from_device(&y);
}

static void check_attention(struct stream *device, struct stream *twin,
                            const struct sequence_case *sizes, int length, enum dtype dtype)
{
    struct attention_shape shape = {sizes->n_heads, sizes->n_kv_heads, sizes->head_dim, dtype},
                           plain = shape;
    plain.dtype = DTYPE_F32;
    size_t row = (size_t)(shape.n_heads + 2 * shape.n_kv_heads) * (size_t)shape.head_dim;
    size_t y_row = (size_t)(shape.n_heads * shape.head_dim);
    float *qkv = test_numbers(2 * (size_t)length * row, 1, 30);
    struct cache c, t;
    open_cache(&c, device, &shape);
    open_cache(&t, twin, &plain);
    const int from_zero[2] = {0, 0}, both[2] = {length, length};
    float *want = step(&t, &plain, qkv, length, from_zero, both, DTYPE_F32);
    float *whole = step(&c, &shape, qkv, length, from_zero, both, dtype);
    double error = test_largest_error(whole, want, 2 * (size_t)length * y_row) /
                   largest(want, 2 * (size_t)length * y_row);
    if (!(error <= tolerance(dtype)))
        fail_msg("attention %s, %d rows, head_dim %d: error %g", dtype_name(dtype), length,
                 shape.head_dim, error);
    /* The last rows again: alone, and three together while the other sequence rests. */
    for (int n = 1; n <= 3 && n <= length; n += 2) {
        const int starts[2] = {length - n, length}, rows[2] = {n, 0};
        float *again = step(&c, &shape, qkv, length, starts, rows, dtype);
        assert_memory_equal(again, whole + (size_t)(length - n) * y_row,
                            (size_t)n * y_row * sizeof(*again));
        free(again);
    }
    close_cache(&c);
    close_cache(&t);
    free(qkv), free(want), free(whole);
}

static void test_attention(void **state)
{
    (void)state;
    static const struct sequence_case cases[] = {{2, 2, 16}, {6, 2, 22}, {3, 1, 64}, {8, 1, 10}};
    static const int lengths[] = {1, 65, 300};
    struct stream *device = open_device(), *twin = twin_stream();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++)
            for (int t = 0; t < 2; t++)
                check_attention(device, twin, &cases[i], lengths[l], dtypes[t]);
    static const struct sequence_case wide = {1, 1, 128}, widest = {1, 1, 256};
    check_attention(device, twin, &wide, 70, DTYPE_BF16);
    check_attention(device, twin, &widest, 18, DTYPE_BF16);
    stream_destroy(device);
    stream_destroy(twin);
}

/* ---- replay ---- */

struct counted_work {
    struct stream *stream;
    void *x, *delta;
    int n_calls;
};

/* x += delta, [1, 8]. */
static enum status add_once(void *context)
{
    struct counted_work *work = context;
    work->n_calls++;
    return add(work->x, work->delta, DTYPE_F32, 1, 8, work->stream);
}

static void expect_sum(struct counted_work *work, float want)
{
    struct error err = {.text = ""};
    float x[8];
    stream_download(work->stream, x, work->x, sizeof(x));
    if (stream_wait(work->stream, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(x[7] == want);
}

/*
 * The first time work runs, the second time it is recorded and the recording runs, then that alone;
 * on numbers as they are then. Another key, another owner, and after forgetting: from the start.
 */
static void test_replay(void **state)
{
    (void)state;
    struct stream *device = open_device();
    const float zeros[8] = {0};
    struct array x = to_device(device, zeros, 8, DTYPE_F32),
                 delta = to_device(device, zeros, 8, DTYPE_F32);
    struct counted_work work = {device, x.memory, delta.memory, 0};
    float want = 0;
    for (int i = 0; i < 5; i++) {
        float addend[8];
        for (int j = 0; j < 8; j++)
            addend[j] = (float)(1 << i);
        stream_upload(device, delta.memory, addend, sizeof(addend));
        assert_int_equal(stream_replay(device, &work, 7, add_once, &work), STATUS_OK);
        expect_sum(&work, want += (float)(1 << i));
        assert_int_equal(work.n_calls, i < 1 ? 1 : 2);
    }
    assert_int_equal(stream_n_replays(device), 4);
    for (int i = 0; i < 4; i++) /* key 0 is never recorded */
        assert_int_equal(stream_replay(device, &work, 0, add_once, &work), STATUS_OK);
    assert_int_equal(work.n_calls, 6);
    assert_int_equal(stream_replay(device, &want, 7, add_once, &work), STATUS_OK);
    assert_int_equal(stream_replay(device, &work, 8, add_once, &work), STATUS_OK);
    assert_int_equal(work.n_calls, 8);
    stream_forget(device, &work);
    assert_int_equal(stream_replay(device, &work, 7, add_once, &work), STATUS_OK);
    assert_int_equal(work.n_calls, 9);
    drop(&x), drop(&delta);
    stream_destroy(device);
}

static void test_first_not_finite(void **state)
{
    (void)state;
    enum { ROWS = 300, HIDDEN = 33 };
    struct stream *device = open_device(), *twin = twin_stream();
    float *x = test_numbers(ROWS * HIDDEN, 1, 60);
    static const struct {
        int row, column;
        float number;
    } cases[] = {{-1, 0, 0}, {0, 0, NAN}, {299, 32, INFINITY}, {255, 31, -INFINITY}, {256, 1, NAN}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int t = 0; t < 2; t++) {
            float *spoilt = malloc(ROWS * HIDDEN * sizeof(*spoilt));
            memcpy(spoilt, x, ROWS * HIDDEN * sizeof(*spoilt));
            if (cases[i].row >= 0)
                spoilt[cases[i].row * HIDDEN + cases[i].column] = cases[i].number;
            struct array there = to_device(device, spoilt, ROWS * HIDDEN, dtypes[t]);
            void *here = test_as(dtypes[t], spoilt, ROWS * HIDDEN);
            int found = 0, want = 0;
            assert_int_equal(
                first_not_finite(&found, there.memory, dtypes[t], ROWS, HIDDEN, device), STATUS_OK);
            assert_int_equal(first_not_finite(&want, here, dtypes[t], ROWS, HIDDEN, twin),
                             STATUS_OK);
            assert_int_equal(want, cases[i].row);
            assert_int_equal(found, cases[i].row);
            drop(&there);
            free(spoilt), free(here);
        }
    free(x);
    stream_destroy(device);
    stream_destroy(twin);
}

/* The tolerance of f32 is below what a wrong eps does. */
static void test_tolerance_notices_eps(void **state)
{
    (void)state;
    struct stream *device = open_device(), *twin = twin_stream();
    enum { HIDDEN = 64 };
    float *x = test_numbers(HIDDEN, 0.1f, 50), *w = test_numbers(HIDDEN, 1, 51), want[HIDDEN];
    rmsnorm(want, x, w, DTYPE_F32, 1, HIDDEN, 1e-5f, twin);
    float *wrong = device_rmsnorm(device, x, NULL, w, DTYPE_F32, 1, HIDDEN, 1e-6f);
    assert_true(relative_error(wrong, want, HIDDEN) > tolerance(DTYPE_F32));
    free(x), free(w);
    stream_destroy(device);
    stream_destroy(twin);
}

int main(void)
{
    setenv("SIMGPU_PROTECT", "1", 0); /* a host that touches device memory ends at once */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),          cmocka_unit_test(test_add_silu_embedding),
        cmocka_unit_test(test_linear),           cmocka_unit_test(test_linear_rows),
        cmocka_unit_test(test_unprepared_range), cmocka_unit_test(test_attention),
        cmocka_unit_test(test_replay),           cmocka_unit_test(test_first_not_finite),
        cmocka_unit_test(test_tolerance_notices_eps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
