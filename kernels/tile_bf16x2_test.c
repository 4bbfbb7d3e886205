/*
 * tile_bf16x2_test.c - goal: the products of numbers in two parts agree with double arithmetic
 * within the stated 2^-16 of each product, on the model of the tiles and, where the machine has
 * AMX, on the real ones; rows computed alone have the same bits; and a part left out is seen.
 */
#include "kernels/test_tools.h"

#include "kernels/cpu/norm_row.h"
#include "kernels/cpu/tile_bf16x2.h"

#if defined(__x86_64__)

#define tile_bf16x2_begin    model_begin
#define tile_bf16x2_end      model_end
#define tile_bf16x2_multiply model_products
#include "kernels/amx_model.h"
#include "kernels/cpu/tile_bf16x2.c"
#undef tile_bf16x2_begin
#undef tile_bf16x2_end
#undef tile_bf16x2_multiply
void tile_bf16x2_begin(void);
void tile_bf16x2_end(void);
void tile_bf16x2_multiply(float *c, size_t c_stride, const struct bf16x2_rows *a, const void *b,
                          int m, int n, int k, bool add);

struct shape {
    int m, n, k;
    bool add;
};

static const struct shape shapes[] = {{16, 16, 32, false},
                                      {32, 32, 64, true},
                                      {48, 32, 96, false},
                                      {16, 32, 288, true},
                                      {80, 16, 256, true}};

enum { C_STRIDE = 40, A_STRIDE_MORE = 8 };

struct problem {
    float *a, *b, *c;
    bf16 *high, *low;
    void *packed;
    struct bf16x2_rows rows;
};

/* Numbers of 24 bits, so that the parts matter. */
static float *full_numbers(size_t n, uint32_t seed)
{
    float *x = malloc(sizeof(*x) * n);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
    return x;
}

static struct problem make_problem(const struct shape *s)
{
    struct problem x;
    const size_t stride = (size_t)(s->k + A_STRIDE_MORE), n_a = (size_t)s->m * stride;
    x.a = full_numbers(n_a, 1);
    x.b = full_numbers((size_t)s->k * (size_t)s->n, 2);
    x.c = full_numbers((size_t)s->m * C_STRIDE, 3);
    x.high = malloc(n_a * sizeof(bf16));
    x.low = malloc(n_a * sizeof(bf16));
    for (size_t i = 0; i < n_a; i++) {
        x.high[i] = bf16_from_f32(x.a[i]);
        x.low[i] = bf16_from_f32(x.a[i] - bf16_to_f32(x.high[i]));
    }
    x.packed = aligned_alloc(64, sizeof(float) * (size_t)s->k * (size_t)s->n);
    tile_bf16x2_pack(x.packed, x.b, s->n, s->k);
    x.rows = (struct bf16x2_rows){x.high, x.low, stride};
    return x;
}

static void free_problem(struct problem *x)
{
    free(x->a);
    free(x->b);
    free(x->c);
    free(x->high);
    free(x->low);
    free(x->packed);
}

static void run(struct problem *x, const struct shape *s, bool on_model)
{
    if (on_model) {
        model_begin();
        model_products(x->c, C_STRIDE, &x->rows, x->packed, s->m, s->n, s->k, s->add);
        model_end();
    } else {
        tile_bf16x2_begin();
        tile_bf16x2_multiply(x->c, C_STRIDE, &x->rows, x->packed, s->m, s->n, s->k, s->add);
        tile_bf16x2_end();
    }
}

/* The largest error of a sum over the sum of its products' sizes. Beside the products' own 2^-16
 * the f32 sums are rounded, 2^-24 each. What is not a sum must be as it was. */
static double error_of(const struct problem *got, const struct problem *before,
                       const struct shape *s)
{
    double worst = 0;
    for (int r = 0; r < s->m; r++)
        for (int j = 0; j < C_STRIDE; j++) {
            const size_t at = (size_t)r * C_STRIDE + (size_t)j;
            if (j >= s->n) {
                assert_true(got->c[at] == before->c[at]);
                continue;
            }
            double sum = s->add ? (double)before->c[at] : 0, size = fabs(sum);
            for (int i = 0; i < s->k; i++) {
                double product = (double)got->a[(size_t)r * got->rows.stride + (size_t)i] *
                                 (double)got->b[(size_t)i * (size_t)s->n + (size_t)j];
                sum += product;
                size += fabs(product);
            }
            worst = fmax(worst, fabs((double)got->c[at] - sum) / size);
        }
    return worst;
}

static void check_products(bool on_model)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct problem got = make_problem(&shapes[i]), before = make_problem(&shapes[i]);
        run(&got, &shapes[i], on_model);
        double error = error_of(&got, &before, &shapes[i]);
        print_message("shape %zu error %.2g\n", i, error);
        assert_true(error < 0x1p-16);
        free_problem(&got);
        free_problem(&before);
    }
}

static void test_products_on_the_model(void **state)
{
    (void)state;
    check_products(true);
}

static void test_products_on_the_machine(void **state)
{
    (void)state;
    if (real_tiles_are_missing())
        return;
    check_products(false);
}

/* The bound notices each of the three products. */
static void test_a_missing_part_is_seen(void **state)
{
    (void)state;
    const struct shape *s = &shapes[0];
    for (int part = 0; part < 3; part++) {
        struct problem got = make_problem(s), before = make_problem(s);
        if (part == 0)
            memset(got.low, 0, (size_t)s->m * got.rows.stride * sizeof(bf16));
        else
            memset((bf16 *)got.packed + (part == 1 ? TILE_NUMBERS : 0), 0,
                   TILE_NUMBERS * sizeof(bf16));
        run(&got, s, true);
        assert_true(error_of(&got, &before, s) > 0x1p-14);
        free_problem(&got);
        free_problem(&before);
    }
}

static void test_rows_alone_are_equal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct shape one = shapes[i];
        one.m = TILE_BF16X2_ROWS;
        struct problem all = make_problem(&shapes[i]), alone = make_problem(&shapes[i]);
        run(&all, &shapes[i], true);
        for (int row = 0; row < shapes[i].m; row += one.m) {
            struct problem part = alone;
            part.c += (size_t)row * C_STRIDE;
            part.rows.high += (size_t)row * part.rows.stride;
            part.rows.low += (size_t)row * part.rows.stride;
            run(&part, &one, true);
        }
        assert_memory_equal(all.c, alone.c, (size_t)shapes[i].m * C_STRIDE * sizeof(float));
        free_problem(&all);
        free_problem(&alone);
    }
}

/* Parts of f(x * scale + shift), on the machine: 16 bits of each number are left, and of swish as
 * far as numbers go. */
static void test_norm(void **state)
{
    static const float x[] = {-3e38f, -1e4f, -200,  -100, -88, -30, -5, -1,
                              -1e-6f, 0,     1e-6f, 1,    5,   30,  88, 3e38f};
    float scale[16], shift[16];
    bf16 high[16], low[16];
    (void)state;
    if (real_tiles_are_missing())
        return;
    for (int swish = 0; swish < 2; swish++) {
        const struct conv2d_norm norm = {scale, shift, swish};
        for (int i = 0; i < 16; i++) {
            scale[i] = i % 2 ? 0.75f : 1;
            shift[i] = i % 3 ? 0 : 0.125f;
        }
        norm_row_bf16x2(high, low, x, 1, 16, &norm);
        for (int i = 0; i < 16; i++) {
            double v = (double)x[i] * (double)scale[i] + (double)shift[i];
            double want = swish ? v / (1 + exp(-v)) : v;
            double got = (double)bf16_to_f32(high[i]) + (double)bf16_to_f32(low[i]);
            if (!(fabs(got - want) <= 0x1p-16 * fabs(want) + 1e-30))
                fail_msg("swish %d of %g: %g, expected %g", swish, v, got, want);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_products_on_the_model),
        cmocka_unit_test(test_products_on_the_machine),
        cmocka_unit_test(test_a_missing_part_is_seen),
        cmocka_unit_test(test_rows_alone_are_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    printf("skipped: not x86-64\n");
    return 0;
}
#endif
