/*
 * stage_test.c - stages in one process against the golden answers of the public reference, and bit
 * for bit against themselves: cut anywhere, in chunks, among other rows, forked, overwritten, after
 * failures.
 *
 * f32 is held to 1e-3 of a row's standard deviation (the sums have another order than torch's),
 * bf16 to a mean total variation of 0.04 (the reference in bf16 itself has 0.01 to 0.03).
 */
#include "worker/stage_test_tools.h"

#include <math.h>

/* The largest difference in units of the row's standard deviation. */
static double row_error(const float *x, const float *y)
{
    double sum = 0, squares = 0, worst = 0;
    for (int i = 0; i < VOCAB; i++) {
        sum += (double)y[i];
        squares += (double)y[i] * (double)y[i];
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    }
    return worst / sqrt(squares / VOCAB - sum / VOCAB * (sum / VOCAB));
}

static double total_variation(const float *x, const float *y)
{
    double max_x = -INFINITY, max_y = -INFINITY, sum_x = 0, sum_y = 0, distance = 0;
    for (int i = 0; i < VOCAB; i++) {
        max_x = fmax(max_x, (double)x[i]);
        max_y = fmax(max_y, (double)y[i]);
    }
    for (int i = 0; i < VOCAB; i++) {
        sum_x += exp((double)x[i] - max_x);
        sum_y += exp((double)y[i] - max_y);
    }
    for (int i = 0; i < VOCAB; i++)
        distance += fabs(exp((double)x[i] - max_x) / sum_x - exp((double)y[i] - max_y) / sum_y);
    return distance / 2;
}

static const char *const models[] = {"v7b", "v34b"};

/* The worst row in f32, the mean over rows of the worst case in bf16. */
static double golden_figure(const char *model, enum dtype compute)
{
    struct golden g;
    struct pipeline p;
    struct golden_case *c = malloc(sizeof(*c));
    float *logits = malloc(ROW_OUTPUTS * VOCAB * sizeof(*logits));
    double worst = 0;
    golden_open(&g, model);
    pipeline_open(&p, model, compute, uncut);
    for (size_t i = 0; golden_case(&g, i, c); i++) {
        double sum = 0;
        probe(&p, i + 1, c->ids, 0, c->n, ROWS_MAX, c->positions, c->n_positions, logits);
        for (int j = 0; j < c->n_positions; j++) {
            const float *x = logits + (size_t)j * VOCAB, *y = c->expected + (size_t)j * VOCAB;
            double figure = compute == DTYPE_F32 ? row_error(x, y) : total_variation(x, y);
            sum += figure;
            worst = compute == DTYPE_F32 ? fmax(worst, figure) : worst;
        }
        if (compute == DTYPE_BF16)
            worst = fmax(worst, sum / c->n_positions);
    }
    print_message("%s %s: %.3g\n", model, dtype_name(compute), worst);
    pipeline_close(&p);
    golden_close(&g);
    free(c);
    free(logits);
    return worst;
}

static void test_golden_f32(void **state)
{
    (void)state;
    for (int m = 0; m < 2; m++)
        assert_true(golden_figure(models[m], DTYPE_F32) <= 1e-3);
}

static void test_golden_bf16(void **state)
{
    (void)state;
    for (int m = 0; m < 2; m++)
        assert_true(golden_figure(models[m], DTYPE_BF16) <= 0.04);
}

static void test_chunks_change_no_bit(void **state)
{
    (void)state;
    static const int chunks[] = {1, 7, 64, 256, 257};
    for (int i = 0; i < 4; i++) {
        struct bits b;
        struct pipeline p;
        enum dtype compute = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        bits_open(&b, models[i / 2], compute);
        pipeline_open(&p, models[i / 2], compute, uncut);
        for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
            probe(&p, c + 1, b.ids, 0, PREFIX, chunks[c], places, N_PLACES, b.got);
            bits_expect_equal(&b);
            release(&p, c + 1);
        }
        pipeline_close(&p);
        bits_close(&b);
    }
}

/* v7b has 4 layers, v34b 6: norms in front of the parts and, in v34b, behind them. */
static const int cuts[][STAGES_MAX] = {{1},    {4},    {5},       {9},
                                       {1, 9}, {3, 8}, {2, 4, 7}, {1, 2, 3, 4, 5, 6, 7, 8, 9}};
enum { N_CUTS = sizeof(cuts) / sizeof(cuts[0]) };

static void test_cuts_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct bits b;
        enum dtype compute = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        bits_open(&b, models[i / 2], compute);
        for (size_t c = 0; c < N_CUTS; c++) {
            struct pipeline p;
            pipeline_open(&p, models[i / 2], compute, cuts[c]);
            probe(&p, 1, b.ids, 0, PREFIX, 100, places, N_PLACES, b.got);
            bits_expect_equal(&b);
            pipeline_close(&p);
        }
        bits_close(&b);
    }
}

static struct stage_memory all_memory(const struct pipeline *p)
{
    struct stage_memory sum = {0};
    for (int k = 0; k < p->n_stages; k++) {
        struct stage_memory memory = stage_memory(p->stages[k]);
        sum.weight_bytes += memory.weight_bytes;
        sum.file_bytes += memory.file_bytes;
        sum.kv_bytes += memory.kv_bytes;
    }
    return sum;
}

/* Every tensor and every layer's keys and values lie in one stage. */
static void test_stages_share_the_memory(void **state)
{
    (void)state;
    struct pipeline p;
    pipeline_open(&p, "v7b", DTYPE_BF16, uncut);
    struct stage_memory whole = all_memory(&p);
    pipeline_close(&p);
    for (size_t c = 0; c < N_CUTS; c++) {
        pipeline_open(&p, "v7b", DTYPE_BF16, cuts[c]);
        struct stage_memory sum = all_memory(&p);
        assert_memory_equal(&sum, &whole, sizeof(sum));
        for (int k = 0; k < p.n_stages && p.n_stages == p.n_units; k++) {
            bool attends = units_kind(k, 4) == UNIT_ATTENTION;
            assert_int_equal(stage_memory(p.stages[k]).kv_bytes, attends ? whole.kv_bytes / 4 : 0);
        }
        pipeline_close(&p);
    }
}

/* Fills every KV block with NaN, as a sequence that went bad may leave it. */
static void spoil_cache(struct pipeline *p)
{
    for (int k = 0; k < p->n_stages; k++)
        for (int l = 0; l < p->stages[k]->weights->attention_layers.n; l++) {
            struct kv_layer layer = kv_cache_layer(p->stages[k]->kv, l);
            memset(layer.pool, 0xff, (size_t)layer.n_blocks * kv_block_bytes(&p->stages[k]->shape));
        }
}

/* Other sequences before and behind ours in the same plans, and a pool full of NaN. */
static void test_company_changes_no_bit(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    for (int i = 0; i < 2; i++) {
        struct bits b;
        struct pipeline p;
        enum dtype compute = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        bits_open(&b, "v34b", compute);
        pipeline_open(&p, "v34b", compute, uncut);
        spoil_cache(&p);
        int done = 0;
        for (int start = 0; start < PREFIX; start += 50) {
            plan_begin(t);
            plan_add_row(t, 7, start / 2, b.ids + start / 2, 25);
            Mgpt__Row *row = plan_add_row(t, 1, start, b.ids + start, 50);
            plan_add_row(t, 8, start / 50, b.ids + start / 50 + 3, 1);
            int first = done;
            while (done < N_PLACES && places[done] < start + 50)
                plan_add_output(t, row, places[done++] - start, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
            assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
            const Mgpt__StepResult *result = step_result_message(p.result);
            assert_int_equal(result->n_errors, 0);
            for (int j = first; j < done; j++)
                memcpy(b.got + (size_t)j * VOCAB, result->logits[j - first]->logits.data,
                       VOCAB * sizeof(float));
        }
        bits_expect_equal(&b);
        pipeline_close(&p);
        bits_close(&b);
    }
    free(t);
}

static void fork_sequence(struct pipeline *p, uint64_t from, uint64_t to, int n_positions)
{
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    plan_begin(t);
    t->plan.forks = t->fork_list;
    t->fork_list[0] = &t->fork;
    t->plan.n_forks = 1;
    mgpt__fork__init(&t->fork);
    t->fork.from = from;
    t->fork.to = to;
    t->fork.n_positions = (uint32_t)n_positions;
    assert_int_equal(pipeline_step(p, &t->plan, &err), STATUS_OK);
    free(t);
}

/* The logits of a sequence that is fed from `start` on are those of the whole. */
static void expect_rest(struct pipeline *p, struct bits *b, uint64_t sequence, int start, int chunk)
{
    int first = 0;
    while (places[first] < start)
        first++;
    memset(b->got, 0, N_PLACES * VOCAB * sizeof(float));
    probe(p, sequence, b->ids, start, PREFIX, chunk, places + first, N_PLACES - first,
          b->got + (size_t)first * VOCAB);
    memcpy(b->got, b->whole, (size_t)first * VOCAB * sizeof(float));
    bits_expect_equal(b);
}

/* A window that was guessed wrong is overwritten; a fork, wherever in a block it begins, continues
 * as its origin would have. */
static void test_overwrite_and_fork(void **state)
{
    (void)state;
    enum { BACK = 10 };
    static const int at[] = {1, 8, 33, 47, 63, 64, 65, 100, 255};
    for (int i = 0; i < 2; i++) {
        enum dtype compute = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        struct bits b;
        struct pipeline p;
        bits_open(&b, "v7b", compute);
        pipeline_open(&p, "v7b", compute, (const int[]){4, 0});
        for (size_t k = 0; k < sizeof(at) / sizeof(at[0]); k++) {
            int wrong[PREFIX];
            for (int j = 0; j < PREFIX; j++)
                wrong[j] = j < at[k] ? b.ids[j] : b.ids[PREFIX - j];
            probe(&p, 1, wrong, 0, 300, 300, NULL, 0, NULL);
            fork_sequence(&p, 1, 2, at[k]);
            expect_rest(&p, &b, 1, at[k] > BACK ? at[k] - BACK : 0, 64);
            expect_rest(&p, &b, 2, at[k], 300);
            release(&p, 1);
            release(&p, 2);
        }
        pipeline_close(&p);
        bits_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_f32),
        cmocka_unit_test(test_golden_bf16),
        cmocka_unit_test(test_chunks_change_no_bit),
        cmocka_unit_test(test_cuts_change_no_bit),
        cmocka_unit_test(test_stages_share_the_memory),
        cmocka_unit_test(test_company_changes_no_bit),
        cmocka_unit_test(test_overwrite_and_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
