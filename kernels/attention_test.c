/*
 * attention_test.c - goal: norm, rotation, cache and attention together give what a plain
 * computation in double gives, on every code path and on odd shapes; and a row's bits are the same
 * whether its sequence came whole, in chunks of 1, 7 or 64, alone or beside others, on any number
 * of threads, across the borders of blocks (64) and splits (256, 512).
 */
#include "kernels/test_tools.h"

#include "kernels/attention.h"

enum { LENGTH_MAX = 600, BLOCKS_MAX = (LENGTH_MAX + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS };

/* One sequence's projections and what goes with them. */
struct problem {
    struct attention_shape shape;
    int n; /* positions */
    float *qkv;
    float *q_weight, *q_bias, *k_weight, *k_bias;
    struct rope_options rope;
};

static size_t row_numbers(const struct attention_shape *s)
{
    return (size_t)(s->n_heads + 2 * s->n_kv_heads) * (size_t)s->head_dim;
}

static size_t y_numbers(const struct attention_shape *s)
{
    return (size_t)s->n_heads * (size_t)s->head_dim;
}

static struct problem make_problem(int n_heads, int n_kv_heads, int head_dim, enum dtype dtype,
                                   int n)
{
    struct problem p = {.shape = {n_heads, n_kv_heads, head_dim, dtype}, .n = n};
    size_t q = (size_t)n_heads * (size_t)head_dim, k = (size_t)n_kv_heads * (size_t)head_dim;
    p.qkv = test_numbers((size_t)n * row_numbers(&p.shape), 2, 11);
    p.q_weight = test_numbers(q, 1.5f, 12);
    p.q_bias = test_numbers(q, 0.5f, 13);
    p.k_weight = test_numbers(k, 1.5f, 14);
    p.k_bias = test_numbers(k, 0.5f, 15);
    p.rope = (struct rope_options){LENGTH_MAX, head_dim, 10000, 2};
    return p;
}

static void free_problem(struct problem *p)
{
    free(p->qkv);
    free(p->q_weight);
    free(p->q_bias);
    free(p->k_weight);
    free(p->k_bias);
}

/* A cache whose memory starts as NaN, to show that nothing unwritten is used. */
struct cache {
    struct kv_layer layer;
    size_t bytes;
    int32_t blocks[BLOCKS_MAX];
};

static void make_cache(struct cache *c, const struct problem *p, struct stream *stream)
{
    c->layer.n_blocks = BLOCKS_MAX + 3;
    c->bytes = (size_t)c->layer.n_blocks * kv_block_bytes(&p->shape);
    assert_int_equal(stream_alloc(stream, &c->layer.pool, c->bytes, NULL), STATUS_OK);
    memset(c->layer.pool, 0xff, c->bytes);
    for (int i = 0; i < BLOCKS_MAX; i++)
        c->blocks[i] = (i * 5 + 2) % (BLOCKS_MAX + 3);
}

struct runner {
    const struct problem *p;
    struct stream *stream;
    struct rope_table *rope;
    struct cache cache;
};

static struct runner make_runner(const struct problem *p, enum code_path path, int n_threads)
{
    struct runner r = {.p = p, .stream = test_stream(path, n_threads)};
    assert_int_equal(rope_table_create(&r.rope, &p->rope, r.stream, NULL), STATUS_OK);
    make_cache(&r.cache, p, r.stream);
    return r;
}

static void free_runner(struct runner *r)
{
    rope_table_destroy(r->rope);
    stream_free(r->stream, r->cache.layer.pool, r->cache.bytes);
    stream_destroy(r->stream);
}

static void step(struct runner *r, void *y, void *qkv, const struct kv_segment *segments, int n)
{
    const struct problem *p = r->p;
    struct qk_norm norm = {p->q_weight, p->q_bias, p->k_weight, p->k_bias, 1e-5f};
    assert_int_equal(
        attention(y, qkv, &p->shape, &norm, r->rope, segments, n, &r->cache.layer, r->stream),
        STATUS_OK);
}

/* The whole sequence in chunks; the result has n rows of the compute type. */
static char *run_chunks(const struct problem *p, enum code_path path, int n_threads, int chunk)
{
    struct runner r = make_runner(p, path, n_threads);
    size_t bytes = dtype_bytes(p->shape.dtype);
    char *y = test_garbage((size_t)p->n * y_numbers(&p->shape) * bytes);
    for (int start = 0; start < p->n; start += chunk) {
        int n = p->n - start < chunk ? p->n - start : chunk;
        void *qkv = test_as(p->shape.dtype, p->qkv + (size_t)start * row_numbers(&p->shape),
                            (size_t)n * row_numbers(&p->shape));
        struct kv_segment segment = {r.cache.blocks, start, n, 0};
        step(&r, y + (size_t)start * y_numbers(&p->shape) * bytes, qkv, &segment, 1);
        free(qkv);
    }
    free_runner(&r);
    return y;
}

/* --- the plain computation --- */

static void plain_head(double *out, const float *x, const float *weight, const float *bias, int d,
                       int position, const struct rope_options *rope, double eps)
{
    double mean = 0, square = 0, normed[HEAD_DIM_MAX];
    for (int i = 0; i < d; i++)
        mean += (double)x[i] / d;
    for (int i = 0; i < d; i++)
        square += ((double)x[i] - mean) * ((double)x[i] - mean) / d;
    for (int i = 0; i < d; i++)
        normed[i] =
            ((double)x[i] - mean) / sqrt(square + eps) * (double)weight[i] + (double)bias[i];
    for (int i = 0; i < d / 2; i++) {
        double angle = position / rope->factor * pow(rope->theta, -2.0 * i / d);
        out[i] = normed[i] * cos(angle) - normed[i + d / 2] * sin(angle);
        out[i + d / 2] = normed[i + d / 2] * cos(angle) + normed[i] * sin(angle);
    }
}

/* Row n - 1 of the sequence, all heads; positions [first, n) are seen (0 is right). */
static void plain_last_row(float *y, const struct problem *p, int first, double eps)
{
    const struct attention_shape *s = &p->shape;
    int d = s->head_dim, group = s->n_heads / s->n_kv_heads;
    const float *last = p->qkv + (size_t)(p->n - 1) * row_numbers(s);
    for (int h = 0; h < s->n_heads; h++) {
        double q[HEAD_DIM_MAX], k[HEAD_DIM_MAX], values[HEAD_DIM_MAX] = {0}, sum = 0;
        int kv = h / group;
        plain_head(q, last + h * d, p->q_weight + h * d, p->q_bias + h * d, d, p->n - 1, &p->rope,
                   eps);
        for (int j = first; j < p->n; j++) {
            const float *row = p->qkv + (size_t)j * row_numbers(s);
            double score = 0;
            plain_head(k, row + (s->n_heads + kv) * d, p->k_weight + kv * d, p->k_bias + kv * d, d,
                       j, &p->rope, eps);
            for (int i = 0; i < d; i++)
                score += q[i] * k[i];
            double weight = exp(score / sqrt(d));
            sum += weight;
            for (int i = 0; i < d; i++)
                values[i] += weight * (double)row[(s->n_heads + s->n_kv_heads + kv) * d + i];
        }
        for (int i = 0; i < d; i++)
            y[h * d + i] = (float)(values[i] / sum);
    }
}

/*
 * Values lie below 2. In f32 scores are good to about 2^-20 and so are the weights. In bf16 q and k
 * are rounded to 8 bits, which moves a score of size 5 by some 2^-7 and the result by about as
 * much, and the result itself is rounded.
 */
static double tolerance(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 1e-5 : 0.04;
}

static double error_of_last_row(const struct problem *p, const char *y, int first, double eps)
{
    size_t n = y_numbers(&p->shape);
    float *want = malloc(n * sizeof(*want));
    float *got =
        test_as_f32(p->shape.dtype, y + (size_t)(p->n - 1) * n * dtype_bytes(p->shape.dtype), n);
    plain_last_row(want, p, first, eps);
    double error = test_largest_error(got, want, n);
    free(want);
    free(got);
    return error;
}

struct shape_case {
    int n_heads, n_kv_heads, head_dim, n;
};

static const struct shape_case shapes[] = {{1, 1, 2, 1},    {2, 1, 6, 70},    {4, 4, 16, 130},
                                           {6, 2, 24, 258}, {3, 1, 64, 513},  {4, 2, 80, 65},
                                           {2, 2, 128, 64}, {1, 1, 256, 300}, {70, 1, 8, 66}};

static void check_values(enum code_path path)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int dtype = 0; dtype < 2; dtype++) {
            const struct shape_case *c = &shapes[i];
            enum dtype type = dtype ? DTYPE_BF16 : DTYPE_F32;
            struct problem p = make_problem(c->n_heads, c->n_kv_heads, c->head_dim, type, c->n);
            char *y = run_chunks(&p, path, 2, c->n);
            double error = error_of_last_row(&p, y, 0, 1e-5);
            if (!(error <= tolerance(type)))
                fail_msg("%s %s heads %d/%d of %d, %d positions: error %g", code_path_name(path),
                         dtype_name(type), c->n_heads, c->n_kv_heads, c->head_dim, c->n, error);
            free(y);
            free_problem(&p);
        }
}

static void test_values(void **state)
{
    (void)state;
    test_each_path(check_values);
}

/* What the tolerance must notice: one position left out, an eps of 0.1, another factor of the
 * angles. */
static void test_tolerance_notices_faults(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++) {
        enum dtype type = dtype ? DTYPE_BF16 : DTYPE_F32;
        struct problem p = make_problem(4, 4, 16, type, 20);
        char *y = run_chunks(&p, CODE_PATH_PORTABLE, 1, 20);
        assert_true(error_of_last_row(&p, y, 0, 1e-5) <= tolerance(type));
        assert_true(error_of_last_row(&p, y, 1, 1e-5) > tolerance(type));
        assert_true(error_of_last_row(&p, y, 0, 0.1) > tolerance(type));
        p.rope.factor = 1;
        assert_true(error_of_last_row(&p, y, 0, 1e-5) > tolerance(type));
        free(y);
        free_problem(&p);
    }
}

/* Three, one and two query heads share a kv head. */
static const struct shape_case chunked_shapes[] = {
    {6, 2, 24, 530}, {7, 7, 64, 330}, {6, 3, 80, 330}};

static void check_chunks_of(enum code_path path, const struct shape_case *c, enum dtype type)
{
    static const int chunks[] = {1, 7, 64, 100};
    struct problem p = make_problem(c->n_heads, c->n_kv_heads, c->head_dim, type, c->n);
    size_t bytes = (size_t)p.n * y_numbers(&p.shape) * dtype_bytes(type);
    char *whole = run_chunks(&p, path, 1, p.n);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        char *y = run_chunks(&p, path, 1 + (int)i, chunks[i]);
        assert_memory_equal(y, whole, bytes);
        free(y);
    }
    free(whole);
    free_problem(&p);
}

static void check_chunks(enum code_path path)
{
    for (size_t i = 0; i < sizeof(chunked_shapes) / sizeof(chunked_shapes[0]); i++)
        for (int dtype = 0; dtype < 2; dtype++)
            check_chunks_of(path, &chunked_shapes[i], dtype ? DTYPE_BF16 : DTYPE_F32);
}

static void test_chunks_are_equal(void **state)
{
    (void)state;
    test_each_path(check_chunks);
}

/*
 * Three sequences of different lengths step together, in one micro-batch of segments of 1, 3 and 40
 * rows; then each alone in a fresh cache. Sequence s is the problem's rows from 10 s on.
 */
static void check_company(enum code_path path)
{
    static const int lengths[] = {65, 130, 290}, rows[] = {1, 3, 40};
    struct problem p = make_problem(4, 2, 16, DTYPE_BF16, 330);
    size_t row_bytes = row_numbers(&p.shape) * 2, y_bytes = y_numbers(&p.shape) * 2;
    bf16 *all = test_as(DTYPE_BF16, p.qkv, (size_t)p.n * row_numbers(&p.shape));
    char together[44 * 4 * 16 * 2], alone[44 * 4 * 16 * 2];
    for (int company = 1; company >= 0; company--) {
        struct runner r = make_runner(&p, path, company ? 3 : 1);
        char *qkv = malloc(44 * row_bytes), scratch_y[330 * 4 * 16 * 2];
        struct kv_segment segments[3];
        int32_t blocks[3][5] = {{0, 1}, {2, 3, 4}, {5, 6, 7, 8, 9}};
        int first_row = 0;
        for (int s = 0; s < 3; s++) {
            int start = lengths[s] - rows[s];
            char *prefix = malloc((size_t)start * row_bytes);
            memcpy(prefix, (char *)all + (size_t)(10 * s) * row_bytes, (size_t)start * row_bytes);
            struct kv_segment before = {blocks[s], 0, start, 0};
            step(&r, scratch_y, prefix, &before, 1);
            memcpy(qkv + (size_t)first_row * row_bytes,
                   (char *)all + (size_t)(10 * s + start) * row_bytes, (size_t)rows[s] * row_bytes);
            segments[s] = (struct kv_segment){blocks[s], start, rows[s], first_row};
            first_row += rows[s];
            free(prefix);
        }
        memset(company ? together : alone, company ? 0x7f : 0x7e, sizeof(alone));
        if (company)
            step(&r, together, qkv, segments, 3);
        for (int s = 2; !company && s >= 0; s--)
            step(&r, alone, qkv, &segments[s], 1);
        free(qkv);
        free_runner(&r);
    }
    assert_memory_equal(together, alone, 44 * y_bytes);
    free(all);
    free_problem(&p);
}

static void test_company_changes_nothing(void **state)
{
    (void)state;
    test_each_path(check_company);
}

/* Positions from `start` on are overwritten: a guess that was wrong leaves no trace. */
static void check_overwriting(enum code_path path)
{
    for (int dtype = 0; dtype < 2; dtype++) {
        struct problem p = make_problem(2, 2, 16, dtype ? DTYPE_BF16 : DTYPE_F32, 75);
        size_t row_bytes = row_numbers(&p.shape) * dtype_bytes(p.shape.dtype);
        size_t y_bytes = y_numbers(&p.shape) * dtype_bytes(p.shape.dtype);
        char *whole = run_chunks(&p, path, 1, p.n);
        struct runner r = make_runner(&p, path, 1);
        char *rows = test_as(p.shape.dtype, p.qkv, (size_t)p.n * row_numbers(&p.shape));
        char *qkv = malloc(75 * row_bytes), *y = malloc(75 * y_bytes);
        memcpy(qkv, rows, 60 * row_bytes);
        memset(qkv + 60 * row_bytes, 0x41, 15 * row_bytes); /* guesses of 12.08 */
        struct kv_segment guess = {r.cache.blocks, 0, 75, 0}, again = {r.cache.blocks, 60, 5, 0},
                          rest = {r.cache.blocks, 65, 10, 0};
        step(&r, y, qkv, &guess, 1);
        memcpy(qkv, rows + 60 * row_bytes, 15 * row_bytes);
        step(&r, y, qkv, &again, 1);
        assert_memory_equal(y, whole + 60 * y_bytes, 5 * y_bytes);
        step(&r, y, qkv + 5 * row_bytes, &rest, 1);
        assert_memory_equal(y, whole + 65 * y_bytes, 10 * y_bytes);
        free(rows);
        free(qkv);
        free(y);
        free(whole);
        free_runner(&r);
        free_problem(&p);
    }
}

static void test_overwriting(void **state)
{
    (void)state;
    test_each_path(check_overwriting);
}

static void test_arguments_are_checked(void **state)
{
    (void)state;
    struct problem p = make_problem(2, 2, 16, DTYPE_BF16, 1);
    struct runner r = make_runner(&p, CODE_PATH_PORTABLE, 1);
    struct qk_norm norm = {p.q_weight, p.q_bias, p.k_weight, p.k_bias, 1e-5f};
    bf16 qkv[6 * 16] = {0}, y[2 * 16];
    int32_t bad = r.cache.layer.n_blocks;
    struct kv_segment past_pool = {&bad, 0, 1, 0}, past_table = {r.cache.blocks, LENGTH_MAX, 1, 0};
    const struct kv_segment *const wrong[] = {&past_pool, &past_table};
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            attention(y, qkv, &p.shape, &norm, r.rope, wrong[i], 1, &r.cache.layer, r.stream),
            STATUS_INVALID);
    struct rope_table *table;
    struct error err;
    struct rope_options odd = {10, 7, 1e4, 1};
    assert_int_equal(rope_table_create(&table, &odd, r.stream, &err), STATUS_INVALID);
    assert_null(table);
    odd = (struct rope_options){10, 8, 1e4, 0};
    assert_int_equal(rope_table_create(&table, &odd, r.stream, &err), STATUS_INVALID);
    rope_table_destroy(NULL);
    free_runner(&r);
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),           cmocka_unit_test(test_tolerance_notices_faults),
        cmocka_unit_test(test_chunks_are_equal), cmocka_unit_test(test_company_changes_nothing),
        cmocka_unit_test(test_overwriting),      cmocka_unit_test(test_arguments_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
