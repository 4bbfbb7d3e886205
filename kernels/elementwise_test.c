/*
 * elementwise_test.c - goal: rmsnorm, add, silu_mul and embedding give what double gives, within
 * the rounding of the compute type, on odd sizes and every code path; rows do not depend on each
 * other or on the threads; the fused norm equals its parts; the exponential is good everywhere it
 * is used.
 */
#include "kernels/test_tools.h"

#include "kernels/add.h"
#include "kernels/cpu/vector.h"
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "kernels/silu_mul.h"

static const int widths[] = {1, 15, 16, 17, 64, 96, 100, 1031};

/* One rounding to 8 (bf16) or some roundings to 24 bits (f32) of results below `size`. */
static double tolerance(enum dtype dtype, double size)
{
    return size * (dtype == DTYPE_F32 ? 0x1p-21 : 0x1p-8);
}

enum operation { RMSNORM, ADD, SILU_MUL, N_OPERATIONS };

struct problem {
    enum operation operation;
    enum dtype dtype;
    int n_rows, width;
    float *a, *b, *weight; /* a: x, or gate and up; b: delta */
    float eps;
};

static struct problem make_problem(enum operation operation, enum dtype dtype, int n_rows,
                                   int width)
{
    size_t n = (size_t)n_rows * (size_t)width;
    return (struct problem){operation,
                            dtype,
                            n_rows,
                            width,
                            test_numbers(2 * n, 4, 21),
                            test_numbers(n, 4, 22),
                            test_numbers((size_t)width, 2, 23),
                            1e-3f};
}

static void free_problem(struct problem *p)
{
    free(p->a);
    free(p->b);
    free(p->weight);
}

/* Rows [first, first + n) as f32. */
static float *run(const struct problem *p, struct stream *stream, int first, int n)
{
    size_t numbers = (size_t)n * (size_t)p->width, at = (size_t)first * (size_t)p->width;
    int wide = p->operation == SILU_MUL ? 2 : 1;
    void *a = test_as(p->dtype, p->a + (size_t)wide * at, (size_t)wide * numbers);
    void *b = test_as(p->dtype, p->b + at, numbers), *y = test_garbage(numbers * 4);
    if (p->operation == RMSNORM)
        rmsnorm(y, a, p->weight, p->dtype, n, p->width, p->eps, stream);
    else if (p->operation == ADD)
        add(a, b, p->dtype, n, p->width, stream);
    else
        silu_mul(y, a, p->dtype, n, p->width, stream);
    float *out = test_as_f32(p->dtype, p->operation == ADD ? a : y, numbers);
    free(a);
    free(b);
    free(y);
    return out;
}

/* eps as given, to show what the tolerance notices; the other operations leave out row 0 instead.
 */
static float *expected(const struct problem *p, double eps, double gate_factor)
{
    float *y = malloc((size_t)p->n_rows * (size_t)p->width * sizeof(*y));
    for (int r = 0; r < p->n_rows; r++) {
        size_t at = (size_t)r * (size_t)p->width;
        double squares = 0;
        for (int i = 0; i < p->width; i++)
            squares += (double)p->a[at + (size_t)i] * (double)p->a[at + (size_t)i] / p->width;
        for (int i = 0; i < p->width; i++) {
            double x = (double)p->a[at + (size_t)i];
            double gate = gate_factor * (double)p->a[2 * at + (size_t)i];
            double up = (double)p->a[2 * at + (size_t)(p->width + i)];
            y[at + (size_t)i] =
                (float)(p->operation == RMSNORM ? x / sqrt(squares + eps) * (double)p->weight[i]
                        : p->operation == ADD   ? gate_factor * x + (double)p->b[at + (size_t)i]
                                                : gate / (1 + exp(-gate)) * up);
        }
    }
    return y;
}

static double largest_of(const float *x, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fabs((double)x[i]) > largest ? fabs((double)x[i]) : largest;
    return largest;
}

static void check_operation(enum code_path path, enum operation operation, enum dtype dtype,
                            int width)
{
    struct problem p = make_problem(operation, dtype, 5, width);
    struct stream *stream = test_stream(path, 2);
    size_t n = (size_t)p.n_rows * (size_t)width;
    float *got = run(&p, stream, 0, p.n_rows), *want = expected(&p, (double)p.eps, 1);
    float *wrong = expected(&p, 1, 0.9);
    double limit = tolerance(dtype, largest_of(want, n));
    assert_true(test_largest_error(got, want, n) <= limit);
    assert_true(test_largest_error(got, wrong, n) > limit);
    stream_destroy(stream);
    free_problem(&p);
    free(got);
    free(want);
    free(wrong);
}

static void check_operations(enum code_path path)
{
    for (int operation = 0; operation < N_OPERATIONS; operation++)
        for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
            check_operation(path, (enum operation)operation, DTYPE_F32, widths[i]);
            check_operation(path, (enum operation)operation, DTYPE_BF16, widths[i]);
        }
}

static void test_operations(void **state)
{
    (void)state;
    test_each_path(check_operations);
}

/* 70 rows of 1031 numbers are enough to be cut among the threads. */
static void check_rows(enum code_path path)
{
    struct stream *many = test_stream(path, 3), *one = test_stream(path, 1);
    for (int operation = 0; operation < N_OPERATIONS; operation++)
        for (int dtype = 0; dtype < 2; dtype++) {
            struct problem p =
                make_problem((enum operation)operation, dtype ? DTYPE_BF16 : DTYPE_F32, 70, 1031);
            float *together = run(&p, many, 0, p.n_rows);
            for (int r = 0; r < p.n_rows; r++) {
                float *alone = run(&p, one, r, 1);
                assert_memory_equal(alone, together + (size_t)r * 1031, 1031 * sizeof(float));
                free(alone);
            }
            free(together);
            free_problem(&p);
        }
    stream_destroy(many);
    stream_destroy(one);
}

static void test_rows_are_independent(void **state)
{
    (void)state;
    test_each_path(check_rows);
}

static void check_fused_norm(enum code_path path)
{
    struct stream *stream = test_stream(path, 2);
    for (int type = 0; type < 2; type++) {
        enum dtype dtype = type ? DTYPE_BF16 : DTYPE_F32;
        size_t n = 7 * 100, bytes = n * dtype_bytes(dtype);
        struct problem p = make_problem(RMSNORM, dtype, 7, 100);
        void *x = test_as(dtype, p.a, n), *x_fused = test_as(dtype, p.a, n),
             *delta = test_as(dtype, p.b, n);
        char y[700 * 4], y_fused[700 * 4];
        add(x, delta, dtype, 7, 100, stream);
        rmsnorm(y, x, p.weight, dtype, 7, 100, p.eps, stream);
        add_rmsnorm(y_fused, x_fused, delta, p.weight, dtype, 7, 100, p.eps, stream);
        assert_memory_equal(x, x_fused, bytes);
        assert_memory_equal(y, y_fused, bytes);
        free(x);
        free(x_fused);
        free(delta);
        free_problem(&p);
    }
    stream_destroy(stream);
}

static void test_fused_norm_equals_its_parts(void **state)
{
    (void)state;
    test_each_path(check_fused_norm);
}

static void test_silu_far_out(void **state)
{
    (void)state;
    for (int path = 0; path < CODE_PATH_COUNT; path++) {
        if (!code_path_available((enum code_path)path))
            continue;
        struct stream *stream = test_stream((enum code_path)path, 1);
        float gate_up[] = {-300, 300, -90, NAN, 1, 1, 1, 1}, y[4];
        bf16 *half = test_as(DTYPE_BF16, gate_up, 8), half_y[4];
        silu_mul(half_y, half, DTYPE_BF16, 1, 4, stream);
        silu_mul(y, gate_up, DTYPE_F32, 1, 4, stream);
        for (int i = 0; i < 4; i++) {
            float values[] = {y[i], bf16_to_f32(half_y[i])};
            for (int k = 0; k < 2; k++)
                assert_true(i == 1   ? values[k] == 300
                            : i == 3 ? isnan(values[k])
                                     : fabsf(values[k]) < 1e-30f);
        }
        free(half);
        stream_destroy(stream);
    }
}

/* Every 97th float of [-87, 88] against libm's double: at most 2 units in the last place. */
static void test_exponential(void **state)
{
    (void)state;
    double worst = 0;
    for (int sign = 0; sign < 2; sign++)
        for (uint32_t bits = 0x30000000; bits < 0x42b00000; bits += 97 * LANES) {
            float x[LANES], y[LANES];
            for (uint32_t i = 0; i < LANES; i++) {
                uint32_t b = (bits + 97 * i) | (uint32_t)sign << 31;
                memcpy(&x[i], &b, sizeof(b));
                x[i] = x[i] < -87 ? -87 : x[i];
            }
            store_f32(y, exp_lanes(load_f32(x)));
            for (int i = 0; i < LANES; i++) {
                double want = exp((double)x[i]), unit = ldexp(1, ilogb(want) - 23);
                double error = fabs((double)y[i] - want) / unit;
                worst = error > worst ? error : worst;
            }
        }
    printf("exponential: largest error %.2f units in the last place\n", worst);
    assert_true(worst < 2);
    float edges[LANES] = {0, -0.0f, -88, -1000, -INFINITY, NAN}, y[LANES];
    store_f32(y, exp_lanes(load_f32(edges)));
    assert_true(y[0] == 1 && y[1] == 1 && y[2] == 0 && y[3] == 0 && y[4] == 0 && isnan(y[5]));
}

static void test_vector_rounding_is_that_of_base(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 20000; round++) {
        float x[LANES];
        bf16 y[LANES];
        for (int i = 0; i < LANES; i++) {
            uint32_t bits = (uint32_t)test_random(&seed);
            memcpy(&x[i], &bits, sizeof(bits));
        }
        store_bf16(y, load_f32(x));
        for (int i = 0; i < LANES; i++)
            assert_int_equal(y[i], bf16_from_f32(x[i]));
    }
}

static void test_embedding(void **state)
{
    (void)state;
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 1);
    float table[] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, y[6];
    int32_t ids[] = {2, 0}, past[] = {1, 3}, below[] = {-1};
    assert_int_equal(embedding(y, ids, table, DTYPE_F32, 2, 3, 3, stream), STATUS_OK);
    assert_memory_equal(y, ((float[]){6, 7, 8, 0, 1, 2}), sizeof(y));
    assert_int_equal(embedding(y, past, table, DTYPE_F32, 2, 3, 3, stream), STATUS_INVALID);
    assert_int_equal(embedding(y, below, table, DTYPE_F32, 1, 3, 3, stream), STATUS_INVALID);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_rows_are_independent),
        cmocka_unit_test(test_fused_norm_equals_its_parts),
        cmocka_unit_test(test_silu_far_out),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_vector_rounding_is_that_of_base),
        cmocka_unit_test(test_embedding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
