/*
 * linear_test.c - goal: every code path computes the product within the rounding of its number
 * formats on odd sizes, and a row's bits do not depend on the other rows, on the threads, on the
 * range of outputs asked for, or on how it was packed.
 */
#include "kernels/test_tools.h"

#include "kernels/linear.h"

struct sizes {
    int n_out, n_in, n_rows;
};

static const struct sizes cases[] = {{1, 1, 1},      {16, 2, 3},     {17, 31, 2},   {64, 64, 6},
                                     {65, 33, 7},    {96, 176, 13},  {200, 300, 5}, {176, 96, 1},
                                     {130, 515, 33}, {200, 33, 300}, {48, 96, 140}, {1000, 333, 2},
                                     {144, 270, 4}};

struct problem {
    struct sizes size;
    float *w, *x, *bias; /* bf16 values in f32 */
};

static struct problem make_problem(struct sizes size)
{
    size_t n_w = (size_t)size.n_out * (size_t)size.n_in,
           n_x = (size_t)size.n_rows * (size_t)size.n_in;
    return (struct problem){size, test_numbers(n_w, 1, 1), test_numbers(n_x, 1, 2),
                            test_numbers((size_t)size.n_out, 1, 3)};
}

static void free_problem(struct problem *p)
{
    free(p->w);
    free(p->x);
    free(p->bias);
}

static struct linear_weight *pack(const struct problem *p, enum dtype dtype, bool bias,
                                  struct stream *stream)
{
    struct linear_weight *w;
    struct linear_weight_options options = {p->size.n_out, p->size.n_in, dtype, bias};
    assert_int_equal(linear_weight_create(&w, &options, stream, NULL), STATUS_OK);
    /* In two parts, one from bf16 and one from f32. */
    int first = p->size.n_out / 3;
    bf16 *half = test_as(DTYPE_BF16, p->w, (size_t)first * (size_t)p->size.n_in);
    linear_weight_set(w, 0, first, half, DTYPE_BF16);
    linear_weight_set(w, first, p->size.n_out - first, p->w + (size_t)first * (size_t)p->size.n_in,
                      DTYPE_F32);
    if (bias)
        linear_weight_set_bias(w, 0, p->size.n_out, p->bias, DTYPE_F32);
    free(half);
    return w;
}

/* In double; `drop` inputs at the end are left out, to show what the tolerance notices. */
static float *expected(const struct problem *p, bool bias, int drop)
{
    float *y = malloc((size_t)p->size.n_rows * (size_t)p->size.n_out * sizeof(*y));
    for (int r = 0; r < p->size.n_rows; r++)
        for (int o = 0; o < p->size.n_out; o++) {
            double sum = bias ? (double)p->bias[o] : 0;
            for (int i = 0; i < p->size.n_in - drop; i++)
                sum += (double)p->x[(size_t)r * (size_t)p->size.n_in + (size_t)i] *
                       (double)p->w[(size_t)o * (size_t)p->size.n_in + (size_t)i];
            y[(size_t)r * (size_t)p->size.n_out + (size_t)o] = (float)sum;
        }
    return y;
}

/*
 * f32 sums of n terms below 1 err by at most n * 2^-24 times the partial sums (below n); their
 * typical size is sqrt(n), and the errors add up at random: 2^-22 * n is ten times what is seen.
 * bf16 results have 8 bits: 2^-8 of the value, which stays below 0.7 sqrt(n) + 1 here.
 */
static double tolerance(enum dtype y_dtype, int n_in)
{
    double sums = 0x1p-22 * n_in + 1e-6;
    return y_dtype == DTYPE_F32 ? sums : sums + 0x1p-8 * (1.4 * sqrt(n_in) + 1);
}

static void check_product(enum code_path path, enum dtype dtype, struct sizes size, bool bias)
{
    struct problem p = make_problem(size);
    struct stream *stream = test_stream(path, 2);
    struct linear_weight *w = pack(&p, dtype, bias, stream);
    size_t n_y = (size_t)size.n_rows * (size_t)size.n_out;
    void *x = test_as(dtype, p.x, (size_t)size.n_rows * (size_t)size.n_in);
    void *y = test_garbage(n_y * dtype_bytes(dtype));
    float *head = malloc(n_y * sizeof(*head)), *want = expected(&p, bias, 0),
          *wrong = expected(&p, bias, 1);
    assert_int_equal(linear(y, x, w, size.n_rows, stream), STATUS_OK);
    float *got = test_as_f32(dtype, y, n_y);
    assert_true(test_largest_error(got, want, n_y) <= tolerance(dtype, size.n_in));
    assert_int_equal(linear_range_f32(head, x, w, 0, size.n_out, size.n_rows, stream), STATUS_OK);
    assert_true(test_largest_error(head, want, n_y) <= tolerance(DTYPE_F32, size.n_in));
    if (n_y > 100)
        assert_true(test_largest_error(got, wrong, n_y) > tolerance(dtype, size.n_in));
    linear_weight_destroy(w);
    stream_destroy(stream);
    free_problem(&p);
    free(x);
    free(y);
    free(head);
    free(want);
    free(wrong);
    free(got);
}

static void check_all_products(enum code_path path)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int bias = 0; bias < 2; bias++) {
            check_product(path, DTYPE_BF16, cases[i], bias);
            check_product(path, DTYPE_F32, cases[i], bias);
        }
}

static void test_products(void **state)
{
    (void)state;
    test_each_path(check_all_products);
}

/* Every row alone, on one thread, against all rows on `n_threads`. */
static void check_rows_alone(enum code_path path, enum dtype dtype, struct sizes size,
                             int n_threads)
{
    struct problem p = make_problem(size);
    struct stream *many = test_stream(path, n_threads), *one = test_stream(path, 1);
    struct linear_weight *w = pack(&p, dtype, true, many), *w_one = pack(&p, dtype, true, one);
    size_t bytes = dtype_bytes(dtype), row_bytes = (size_t)size.n_out * bytes;
    char *x = test_as(dtype, p.x, (size_t)size.n_rows * (size_t)size.n_in);
    char *together = test_garbage((size_t)size.n_rows * row_bytes),
         *alone = test_garbage(row_bytes);
    assert_int_equal(linear(together, x, w, size.n_rows, many), STATUS_OK);
    for (int r = 0; r < size.n_rows; r++) {
        assert_int_equal(linear(alone, x + (size_t)r * (size_t)size.n_in * bytes, w_one, 1, one),
                         STATUS_OK);
        assert_memory_equal(alone, together + (size_t)r * row_bytes, row_bytes);
    }
    linear_weight_destroy(w);
    linear_weight_destroy(w_one);
    stream_destroy(many);
    stream_destroy(one);
    free_problem(&p);
    free(x);
    free(together);
    free(alone);
}

static void check_invariance(enum code_path path)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int dtype = 0; dtype < 2; dtype++)
            check_rows_alone(path, dtype ? DTYPE_BF16 : DTYPE_F32, cases[i], 1 + (int)i % 5);
}

static void test_rows_alone_and_together_are_equal(void **state)
{
    (void)state;
    test_each_path(check_invariance);
}

static void check_ranges(enum code_path path)
{
    struct sizes size = {300, 70, 5};
    static const int ranges[][2] = {{0, 300}, {4, 192}, {63, 2},  {64, 64},
                                    {17, 1},  {299, 1}, {100, 30}};
    struct problem p = make_problem(size);
    struct stream *stream = test_stream(path, 3);
    for (int dtype = 0; dtype < 2; dtype++) {
        enum dtype type = dtype ? DTYPE_BF16 : DTYPE_F32;
        struct linear_weight *w = pack(&p, type, true, stream);
        void *x = test_as(type, p.x, (size_t)size.n_rows * (size_t)size.n_in);
        float whole[300 * 5], part[300 * 5];
        linear_range_f32(whole, x, w, 0, size.n_out, size.n_rows, stream);
        for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
            int first = ranges[i][0], n = ranges[i][1];
            linear_range_f32(part, x, w, first, n, size.n_rows, stream);
            for (int r = 0; r < size.n_rows; r++)
                assert_memory_equal(part + r * n, whole + r * size.n_out + first,
                                    (size_t)n * sizeof(float));
        }
        linear_weight_destroy(w);
        free(x);
    }
    stream_destroy(stream);
    free_problem(&p);
}

static void test_ranges_of_outputs_are_equal(void **state)
{
    (void)state;
    test_each_path(check_ranges);
}

/* f32 products are not fused, so all paths agree; this makes the f32 answers those of the plain
 * twin everywhere. */
static void test_f32_is_the_same_on_all_paths(void **state)
{
    (void)state;
    struct sizes size = {65, 333, 7};
    struct problem p = make_problem(size);
    float first[65 * 7], y[65 * 7];
    for (int path = 0; path < CODE_PATH_COUNT; path++) {
        if (!code_path_available((enum code_path)path))
            continue;
        struct stream *stream = test_stream((enum code_path)path, 1);
        struct linear_weight *w = pack(&p, DTYPE_F32, true, stream);
        linear(path ? y : first, p.x, w, size.n_rows, stream);
        if (path)
            assert_memory_equal(y, first, sizeof(y));
        linear_weight_destroy(w);
        stream_destroy(stream);
    }
    free_problem(&p);
}

static void test_options_are_checked(void **state)
{
    (void)state;
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 1);
    struct linear_weight *w;
    struct error err;
    struct linear_weight_options options = {0, 5, DTYPE_F32, false};
    assert_int_equal(linear_weight_create(&w, &options, stream, &err), STATUS_INVALID);
    assert_null(w);
    assert_non_null(strstr(err.text, "[0, 5]"));
    options = (struct linear_weight_options){5, 5, DTYPE_F16, false};
    assert_int_equal(linear_weight_create(&w, &options, stream, &err), STATUS_INVALID);
    options = (struct linear_weight_options){1 << 30, 1 << 30, DTYPE_F32, false};
    assert_int_equal(linear_weight_create(&w, &options, stream, &err), STATUS_NOMEM);
    options = (struct linear_weight_options){17, 33, DTYPE_BF16, true};
    assert_int_equal(linear_weight_bytes(&options), 32 * 64 * 2 + 32 * 4);
    linear_weight_destroy(NULL);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_rows_alone_and_together_are_equal),
        cmocka_unit_test(test_ranges_of_outputs_are_equal),
        cmocka_unit_test(test_f32_is_the_same_on_all_paths),
        cmocka_unit_test(test_options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
