/*
 * tile_amx_test.c - goal: the walk of tile_amx.c over memory is right and row-invariant, on
 * machines without AMX too: the file is compiled here against the model of the tiles. Where the
 * machine has AMX the real one is held against the model.
 */
#include "kernels/test_tools.h"

#include "kernels/cpu/tile.h"

#if defined(__x86_64__)

#include "kernels/amx_model.h"

#define AMX_PRODUCT multiply_on_model
void multiply_on_model(const struct tile_product *product);
#include "kernels/cpu/tile_amx.c"

struct shape {
    int n_rows, n_groups, n_pairs, panel, resume, laid_out;
};

/* Operands of a product in aligned memory; acc starts as 1.5 and more, so that what is not written
 * is seen. */
struct problem {
    struct tile_product p;
    float *acc;
    bf16 *a, *b;
    void *laid_out;
};

static struct problem make_problem(const struct shape *s)
{
    struct problem x;
    size_t n_a = (size_t)s->n_rows * (size_t)s->n_pairs * 2,
           n_b = (size_t)s->n_groups * (size_t)s->n_pairs * 32;
    float *a = test_numbers(n_a, 1, 41), *b = test_numbers(n_b, 1, 42);
    x.a = test_as(DTYPE_BF16, a, n_a);
    x.b = aligned_alloc(64, n_b * sizeof(bf16));
    dtype_convert(x.b, DTYPE_BF16, b, DTYPE_F32, n_b);
    const struct tile_layout *layout = &tile_layout_amx;
    x.laid_out = NULL;
    if (s->laid_out) {
        x.laid_out = aligned_alloc(64, tile_layout_bytes(layout, s->n_rows, s->n_pairs));
        layout->lay_out(x.laid_out, x.a, (size_t)s->n_pairs * 2, s->n_rows, s->n_pairs);
    }
    int n_sums = tile_layout_rows(layout, s->n_rows) * 70;
    x.acc = malloc((size_t)n_sums * sizeof(float));
    for (int i = 0; i < n_sums; i++)
        x.acc[i] = 1.5f + (float)(i / 70 % 3);
    x.p = (struct tile_product){.acc = x.acc,
                                .ld_acc = 70,
                                .a = x.a,
                                .ld_a = (size_t)s->n_pairs * 2,
                                .laid_out = x.laid_out,
                                .laid_out_run =
                                    (size_t)tile_layout_rows(layout, s->n_rows) * layout->row_bytes,
                                .b = x.b,
                                .group_stride = s->panel ? 32 : (size_t)s->n_pairs * 32,
                                .pair_stride = s->panel ? (size_t)s->n_groups * 32 : 32,
                                .n_rows = s->n_rows,
                                .n_groups = s->n_groups,
                                .n_pairs = s->n_pairs,
                                .resume = s->resume,
                                .n_products = 1};
    free(a);
    free(b);
    return x;
}

static void free_problem(struct problem *x)
{
    free(x->acc);
    free(x->a);
    free(x->b);
    free(x->laid_out);
}

static const struct shape shapes[] = {
    {1, 4, 16, 1, 0, 0},  {1, 1, 32, 1, 1, 0},  {5, 3, 48, 1, 0, 0},   {16, 4, 96, 1, 1, 0},
    {17, 4, 32, 1, 0, 1}, {32, 4, 80, 1, 1, 1}, {31, 3, 16, 0, 0, 1},  {33, 2, 112, 1, 0, 1},
    {70, 1, 48, 1, 1, 1}, {20, 4, 96, 0, 1, 1}, {70, 4, 80, 1, 0, 1},  {48, 3, 96, 0, 0, 1},
    {3, 2, 160, 1, 0, 1}, {97, 2, 96, 1, 1, 1}, {128, 2, 80, 1, 0, 1}, {40, 4, 96, 1, 1, 1},
    {50, 2, 80, 1, 0, 1}, {84, 2, 96, 1, 1, 1}};

/* Against the portable product: sums of up to 224 terms below 1, onto a few, so 1e-3 is far above
 * rounding and far below a term. */
static void test_walk(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct problem got = make_problem(&shapes[i]), want = make_problem(&shapes[i]);
        multiply_on_model(&got.p);
        tile_multiply_portable(&want.p);
        assert_true(test_largest_error(got.acc, want.acc, (size_t)shapes[i].n_rows * 70) < 1e-3);
        free_problem(&got);
        free_problem(&want);
    }
}

static void test_rows_alone_are_equal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct problem all = make_problem(&shapes[i]), alone = make_problem(&shapes[i]);
        multiply_on_model(&all.p);
        for (int r = 0; r < shapes[i].n_rows; r++) {
            struct tile_product p = alone.p;
            p.acc += (size_t)r * p.ld_acc;
            p.a += (size_t)r * p.ld_a;
            p.laid_out = NULL;
            p.n_rows = 1;
            multiply_on_model(&p);
        }
        assert_memory_equal(all.acc, alone.acc, (size_t)shapes[i].n_rows * 70 * sizeof(float));
        free_problem(&all);
        free_problem(&alone);
    }
}

static void test_real_tiles_agree_with_the_model(void **state)
{
    (void)state;
    if (real_tiles_are_missing())
        return;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct problem real = make_problem(&shapes[i]), model = make_problem(&shapes[i]);
        tile_multiply_amx(&real.p);
        multiply_on_model(&model.p);
        assert_true(test_largest_error(real.acc, model.acc, (size_t)shapes[i].n_rows * 70) < 1e-3);
        free_problem(&real);
        free_problem(&model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_rows_alone_are_equal),
        cmocka_unit_test(test_real_tiles_agree_with_the_model),
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
