/*
 * device_codec_test.c - goal: each operation of the picture codec on the CUDA device (or the
 * simulated one) agrees with its plain twin on odd sizes; a pixel's bits do not depend on how large
 * the picture around it is. Skipped where there is no device.
 *
 * Tolerances: sums of f32 in another order than the twin's, so 2e-5 of the largest number; moments
 * are f64 on both sides, rounded once. The last test shows that a wrong eps and a missing swish are
 * more than that.
 */
#include "kernels/device_test_tools.h"

#include "kernels/codebook.h"
#include "kernels/conv2d.h"
#include "kernels/group_norm.h"
#include "kernels/spatial_attention.h"

struct conv_case {
    struct conv2d_shape shape;
    int width, height;
    bool norm, swish, residual;
};

/* The numbers of one convolution. */
struct conv_numbers {
    float *x, *weight, *bias, *scale, *shift, *residual;
    size_t n_x, n_y;
};

static size_t numbers_of_y(const struct conv_case *c, int height)
{
    return (size_t)conv2d_side(c->shape.kind, c->width) *
           (size_t)conv2d_side(c->shape.kind, height) * (size_t)c->shape.n_out;
}

static void make_numbers(struct conv_numbers *n, const struct conv_case *c)
{
    size_t side = (size_t)c->shape.kernel;
    n->n_x = (size_t)c->width * (size_t)c->height * (size_t)c->shape.n_in;
    n->n_y = numbers_of_y(c, c->height);
    n->x = test_numbers(n->n_x, 1, 1);
    n->weight = test_numbers((size_t)c->shape.n_in * (size_t)c->shape.n_out * side * side, 1, 2);
    n->bias = test_numbers((size_t)c->shape.n_out, 1, 3);
    n->scale = test_numbers((size_t)c->shape.n_in, 2, 4);
    n->shift = test_numbers((size_t)c->shape.n_in, 1, 5);
    n->residual = test_numbers(n->n_y, 1, 6);
}

static void free_numbers(struct conv_numbers *n)
{
    free(n->x), free(n->weight), free(n->bias), free(n->scale), free(n->shift), free(n->residual);
}

/* The picture of height rows on the device; the residual's memory becomes y, as conv2d() allows. */
static float *device_conv(struct stream *device, const struct conv_numbers *n,
                          const struct conv_case *c, int height, bool swish)
{
    size_t n_y = numbers_of_y(c, height);
    size_t n_x = n->n_x / (size_t)c->height * (size_t)height;
    struct conv2d_weight *weight;
    struct error err;
    if (conv2d_weight_create(&weight, &c->shape, n->weight, n->bias, device, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    struct array x = to_device(device, n->x, n_x, DTYPE_F32),
                 y = to_device(device, c->residual ? n->residual : NULL, n_y, DTYPE_F32);
    struct array scale = to_device(device, n->scale, (size_t)c->shape.n_in, DTYPE_F32),
                 shift = to_device(device, n->shift, (size_t)c->shape.n_in, DTYPE_F32);
    struct conv2d_norm norm = {scale.memory, shift.memory, swish};
    assert_int_equal(conv2d(y.memory, x.memory, weight, c->norm ? &norm : NULL,
                            c->residual ? y.memory : NULL, c->width, height, device),
                     STATUS_OK);
    float *got = from_device(&y);
    drop(&x), drop(&scale), drop(&shift);
    conv2d_weight_destroy(weight);
    return got;
}

static float *twin_conv(const struct conv_numbers *n, const struct conv_case *c)
{
    struct conv2d_norm norm = {n->scale, n->shift, c->swish};
    float *want = malloc(n->n_y * sizeof(*want));
    conv2d_ref(want, n->x, &c->shape, n->weight, n->bias, c->norm ? &norm : NULL,
               c->residual ? n->residual : NULL, c->width, c->height);
    return want;
}

static void test_conv2d(void **state)
{
    (void)state;
    static const struct conv_case cases[] = {
        {{3, 32, 3, CONV2D_SAME}, 17, 9, false, false, false},
        {{32, 3, 3, CONV2D_SAME}, 31, 5, true, true, false},
        {{32, 32, 3, CONV2D_SAME}, 13, 7, true, true, true},
        {{64, 48, 3, CONV2D_SAME}, 1, 1, true, true, false},
        {{32, 80, 1, CONV2D_SAME}, 7, 11, true, false, true},
        {{5, 7, 1, CONV2D_SAME}, 3, 2, false, false, true},
        {{48, 161, 3, CONV2D_SAME}, 20, 4, true, true, true},
        {{32, 64, 3, CONV2D_DOWN}, 26, 14, false, false, false},
        {{3, 5, 3, CONV2D_DOWN}, 2, 2, false, false, false},
        {{64, 32, 3, CONV2D_UP}, 9, 6, false, false, false},
        {{4, 3, 3, CONV2D_UP}, 1, 3, false, false, true},
        {{20, 130, 3, CONV2D_UP}, 12, 7, false, false, false},
    };
    struct stream *device = open_device();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct conv_case *c = &cases[i];
        struct conv_numbers n;
        make_numbers(&n, c);
        float *want = twin_conv(&n, c), *got = device_conv(device, &n, c, c->height, c->swish);
        double error = test_largest_error(got, want, n.n_y) / largest(want, n.n_y);
        if (!(error <= tolerance(DTYPE_F32)))
            fail_msg("conv2d, case %zu: error %g", i, error);
        /* The upper half alone: what does not touch the cut keeps its bits. */
        int half = c->height / 4 * 2, rows = conv2d_side(c->shape.kind, half) - 2;
        if (half > 0 && rows > 0) {
            float *part = device_conv(device, &n, c, half, c->swish);
            assert_memory_equal(part, got,
                                n.n_y / (size_t)conv2d_side(c->shape.kind, c->height) *
                                    (size_t)rows * sizeof(*got));
            free(part);
        }
        free(want), free(got);
        free_numbers(&n);
    }
    stream_destroy(device);
}

/* Returns scale, then shift. */
static float *device_norm(struct stream *device, const float *x, const float *weight,
                          const float *bias, int n_pixels, int n_channels, int n_groups, float eps)
{
    struct array dx = to_device(device, x, (size_t)n_pixels * (size_t)n_channels, DTYPE_F32);
    struct array dw = to_device(device, weight, (size_t)n_channels, DTYPE_F32),
                 db = to_device(device, bias, (size_t)n_channels, DTYPE_F32),
                 out = to_device(device, NULL, 2 * (size_t)n_channels, DTYPE_F32);
    void *workspace;
    size_t bytes = group_norm_workspace_bytes(n_channels);
    assert_int_equal(stream_alloc(device, &workspace, bytes, NULL), STATUS_OK);
    float *scale = out.memory;
    assert_int_equal(group_norm(scale, scale + n_channels, dx.memory, dw.memory, db.memory,
                                n_pixels, n_channels, n_groups, eps, workspace, device),
                     STATUS_OK);
    float *got = from_device(&out);
    drop(&dx), drop(&dw), drop(&db);
    stream_free(device, workspace, bytes);
    return got;
}

static void test_group_norm(void **state)
{
    (void)state;
    static const struct {
        int n_pixels, n_channels, n_groups;
    } cases[] = {{1, 32, 32}, {7, 48, 3}, {255, 16, 1}, {257, 96, 32}, {5000, 80, 16}};
    struct stream *device = open_device();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int n_pixels = cases[i].n_pixels, n_channels = cases[i].n_channels;
        float *x = test_numbers((size_t)n_pixels * (size_t)n_channels, 1, 10);
        float *w = test_numbers((size_t)n_channels, 1, 11),
              *b = test_numbers((size_t)n_channels, 1, 12), want[2 * 96];
        for (int j = 0; j < n_pixels * n_channels; j++)
            x[j] += 30; /* a mean that is large beside the deviation */
        group_norm_ref(want, want + n_channels, x, w, b, n_pixels, n_channels, cases[i].n_groups,
                       1e-6f);
        float *got = device_norm(device, x, w, b, n_pixels, n_channels, cases[i].n_groups, 1e-6f);
        assert_close("group_norm scale", DTYPE_F32, got, want, 2 * (size_t)n_channels);
        free(x), free(w), free(b);
    }
    stream_destroy(device);
}

static void test_spatial_attention(void **state)
{
    (void)state;
    static const struct {
        int n_pixels, n_channels;
    } cases[] = {{1, 16}, {9, 48}, {257, 32}, {530, 272}};
    struct stream *device = open_device();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int n_pixels = cases[i].n_pixels, n_channels = cases[i].n_channels;
        size_t n = (size_t)n_pixels * (size_t)n_channels;
        float *q = test_numbers(n, 2, 20), *k = test_numbers(n, 2, 21), *v = test_numbers(n, 1, 22);
        float *want = malloc(n * sizeof(*want)),
              *scores = malloc((size_t)n_pixels * sizeof(*scores));
        struct array dq = to_device(device, q, n, DTYPE_F32),
                     dk = to_device(device, k, n, DTYPE_F32),
                     dv = to_device(device, v, n, DTYPE_F32);
        void *workspace;
        size_t bytes = spatial_attention_workspace_bytes(n_pixels, n_channels);
        assert_int_equal(stream_alloc(device, &workspace, bytes, NULL), STATUS_OK);
        assert_int_equal(spatial_attention(dq.memory, dq.memory, dk.memory, dv.memory, n_pixels,
                                           n_channels, workspace, device),
                         STATUS_OK);
        spatial_attention_ref(want, q, k, v, n_pixels, n_channels, scores);
        assert_close("spatial_attention", DTYPE_F32, from_device(&dq), want, n);
        stream_free(device, workspace, bytes);
        drop(&dk), drop(&dv);
        free(q), free(k), free(v), free(want), free(scores);
    }
    stream_destroy(device);
}

static void test_codebook(void **state)
{
    (void)state;
    static const struct {
        int n, n_codes, n_dims;
    } cases[] = {{1, 1, 1}, {9, 33, 7}, {50, 700, 32}, {17, 64, 256}};
    struct stream *device = open_device();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int n = cases[i].n, n_codes = cases[i].n_codes, n_dims = cases[i].n_dims;
        size_t n_z = (size_t)n * (size_t)n_dims, n_entries = (size_t)n_codes * (size_t)n_dims;
        float *z = test_numbers(n_z, 1, 30), *entries = test_numbers(n_entries, 1, 31);
        if (n_codes > 40) /* equals: the smallest index counts */
            memcpy(entries + 40 * n_dims, entries + 3 * n_dims, (size_t)n_dims * sizeof(*z));
        if (n_codes > 40)
            memcpy(z, entries + 3 * n_dims, (size_t)n_dims * sizeof(*z));
        int32_t *want = malloc((size_t)n * sizeof(*want)), *got = malloc((size_t)n * sizeof(*got));
        struct codebook *codebook;
        assert_int_equal(codebook_create(&codebook, entries, n_codes, n_dims, device, NULL),
                         STATUS_OK);
        struct array dz = to_device(device, z, n_z, DTYPE_F32),
                     back = to_device(device, NULL, n_z, DTYPE_F32),
                     codes = to_device(device, NULL, (size_t)n, DTYPE_F32);
        codebook_nearest_ref(want, z, entries, n, n_codes, n_dims);
        assert_int_equal(codebook_nearest(codes.memory, dz.memory, codebook, n, device), STATUS_OK);
        stream_download(device, got, codes.memory, (size_t)n * sizeof(*got));
        assert_memory_equal(got, want, (size_t)n * sizeof(*got));
        assert_int_equal(codebook_lookup(back.memory, got, codebook, n, device), STATUS_OK);
        float *entry = from_device(&back);
        for (int j = 0; j < n; j++)
            assert_memory_equal(entry + (size_t)j * (size_t)n_dims,
                                entries + (size_t)got[j] * (size_t)n_dims,
                                (size_t)n_dims * sizeof(*entry));
        drop(&dz), drop(&codes);
        codebook_destroy(codebook);
        free(z), free(entries), free(want), free(got), free(entry);
    }
    stream_destroy(device);
}

static void test_tolerance_notices_faults(void **state)
{
    (void)state;
    enum { PIXELS = 40, CHANNELS = 32 };
    static const struct conv_case c = {{32, 16, 3, CONV2D_SAME}, 5, 5, true, true, false};
    struct stream *device = open_device();
    struct conv_numbers n;
    make_numbers(&n, &c);
    float *want = twin_conv(&n, &c);
    assert_true(relative_error(device_conv(device, &n, &c, c.height, false), want, n.n_y) >
                tolerance(DTYPE_F32));
    float *x = test_numbers(PIXELS * CHANNELS, 0.05f, 40), *w = test_numbers(CHANNELS, 1, 41),
          *b = test_numbers(CHANNELS, 1, 42), scale[2 * CHANNELS];
    group_norm_ref(scale, scale + CHANNELS, x, w, b, PIXELS, CHANNELS, CHANNELS, 1e-6f);
    assert_true(relative_error(device_norm(device, x, w, b, PIXELS, CHANNELS, CHANNELS, 1e-5f),
                               scale, 2 * CHANNELS) > tolerance(DTYPE_F32));
    free(want), free(x), free(w), free(b);
    free_numbers(&n);
    stream_destroy(device);
}

int main(void)
{
    setenv("SIMGPU_PROTECT", "1", 0); /* a host that touches device memory ends at once */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_spatial_attention),
        cmocka_unit_test(test_codebook),
        cmocka_unit_test(test_tolerance_notices_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
