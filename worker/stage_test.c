/*
 * stage_test.c - stages in one process against the golden answers of the public reference, and bit
 * for bit against themselves: cut anywhere, in chunks, among other rows, forked, overwritten, after
 * failures.
 *
 * f32 is held to 1e-3 of a row's standard deviation (the sums have another order than torch's),
 * bf16 to a mean total variation of 0.04 (the reference in bf16 itself has 0.01 to 0.03).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "model/safetensors.h"
#include "worker/model_vocabulary.h"
#include "worker/stage_state.h"

enum { STAGES_MAX = 16, ROWS_MAX = 1200, KV_BLOCKS = 64, VOCAB = 10240 };

/* ---- a pipeline in this process ---- */

struct pipeline {
    struct stream *stream;
    struct stage *stages[STAGES_MAX];
    struct step_result *result;
    int n_stages, n_units;
    uint64_t number;
    char *rows; /* what one stage gives the next */
};

/* cuts: the first unit of each stage but the first, ascending, 0 at the end. */
static void pipeline_open(struct pipeline *p, const char *model, enum dtype compute,
                          const int *cuts)
{
    struct error err = {.text = ""};
    char folder[256];
    snprintf(folder, sizeof(folder), "%s/tests/golden/%s/model", MGPT_SOURCE_DIR, model);
    memset(p, 0, sizeof(*p));
    struct stream_options stream_options = {.n_threads = 2};
    struct checkpoint *checkpoint;
    struct vocabulary *vocabulary;
    assert_int_equal(stream_create(&p->stream, &stream_options, &err), STATUS_OK);
    assert_int_equal(checkpoint_open(&checkpoint, folder, &err), STATUS_OK);
    assert_int_equal(model_vocabulary_load(&vocabulary, folder, &err), STATUS_OK);
    p->n_units = checkpoint_config(checkpoint)->n_layers + 2;
    struct stage_options options = {.compute = compute,
                                    .kv_blocks = KV_BLOCKS,
                                    .sequences_max = 8,
                                    .rows_max = ROWS_MAX,
                                    .outputs_max = 64,
                                    .vocabulary = vocabulary};
    do {
        int next = *cuts ? *cuts++ : p->n_units;
        options.last_unit = next - 1;
        if (stage_create(&p->stages[p->n_stages++], checkpoint, &options, p->stream, &err) !=
            STATUS_OK)
            fail_msg("%s", err.text);
        options.first_unit = next;
    } while (options.first_unit < p->n_units);
    vocabulary_destroy(vocabulary);
    checkpoint_close(checkpoint);
    assert_int_equal(step_result_create(&p->result, 64, &err), STATUS_OK);
    p->rows = malloc((size_t)ROWS_MAX * 128 * sizeof(float));
}

static void pipeline_close(struct pipeline *p)
{
    for (int k = 0; k < p->n_stages; k++)
        stage_destroy(p->stages[k]);
    step_result_destroy(p->result);
    stream_destroy(p->stream);
    free(p->rows);
}

/* Through all stages; the result of the last is in p->result. */
static enum status pipeline_step(struct pipeline *p, Mgpt__StepPlan *plan, struct error *err)
{
    plan->epoch = 1;
    plan->number = ++p->number;
    for (int k = 0; k < p->n_stages; k++) {
        struct stage *stage = p->stages[k];
        step_result_begin(p->result, 1, plan->number, (uint32_t)k);
        enum status st = stage_step(stage, plan, k > 0 ? p->rows : NULL, p->result, err);
        if (st != STATUS_OK)
            return st;
        size_t bytes = (size_t)plan_n_tokens(plan) * (size_t)stage_hidden(stage) *
                       dtype_bytes(stage_compute(stage));
        stream_download(p->stream, p->rows, stage_rows_view(stage), bytes);
    }
    return STATUS_OK;
}

/* ---- plans ---- */

enum { PLAN_ROWS = 4, ROW_OUTPUTS = 16 };

/* A plan with its parts in place. */
struct test_plan {
    Mgpt__StepPlan plan;
    Mgpt__Row rows[PLAN_ROWS];
    Mgpt__Row *row_list[PLAN_ROWS];
    Mgpt__Output outputs[PLAN_ROWS][ROW_OUTPUTS];
    Mgpt__Output *output_lists[PLAN_ROWS][ROW_OUTPUTS];
    Mgpt__Sampling sampling;
    Mgpt__Sampling *sampling_list[1];
    uint32_t tokens[PLAN_ROWS][ROWS_MAX];
    uint64_t release[4];
    Mgpt__Fork fork;
    Mgpt__Fork *fork_list[1];
};

static void plan_begin(struct test_plan *t)
{
    mgpt__step_plan__init(&t->plan);
    mgpt__sampling__init(&t->sampling);
    t->plan.rows = t->row_list;
    t->plan.sampling = t->sampling_list;
    t->plan.n_sampling = 1;
    t->plan.release = t->release;
    t->sampling_list[0] = &t->sampling;
    t->sampling.guidance = 1;
}

static Mgpt__Row *plan_add_row(struct test_plan *t, uint64_t sequence, int start, const int *ids,
                               int n)
{
    size_t r = t->plan.n_rows++;
    Mgpt__Row *row = t->row_list[r] = &t->rows[r];
    mgpt__row__init(row);
    row->sequence = sequence;
    row->start = (uint32_t)start;
    row->tokens = t->tokens[r];
    row->n_tokens = (size_t)n;
    row->outputs = t->output_lists[r];
    for (int i = 0; i < n; i++)
        t->tokens[r][i] = (uint32_t)ids[i];
    return row;
}

static Mgpt__Output *plan_add_output(struct test_plan *t, Mgpt__Row *row, int offset,
                                     Mgpt__OutputKind kind)
{
    size_t r = (size_t)(row - t->rows), i = row->n_outputs++;
    Mgpt__Output *output = t->output_lists[r][i] = &t->outputs[r][i];
    mgpt__output__init(output);
    output->offset = (uint32_t)offset;
    output->kind = kind;
    output->set = MGPT__TOKEN_SET__SET_CODES;
    if (kind == MGPT__OUTPUT_KIND__OUTPUT_LOGITS)
        output->set = MGPT__TOKEN_SET__SET_TEXT;
    return output;
}

/*
 * Logits [n_positions, VOCAB] of `ids` as sequence `sequence`, fed in chunks, from position `from`
 * on (keys before it must be there). positions ascend.
 */
static void probe(struct pipeline *p, uint64_t sequence, const int *ids, int from, int n, int chunk,
                  const int *positions, int n_positions, float *logits)
{
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    int done = 0;
    for (int start = from; start < n; start += chunk) {
        int n_tokens = n - start < chunk ? n - start : chunk;
        plan_begin(t);
        Mgpt__Row *row = plan_add_row(t, sequence, start, ids + start, n_tokens);
        int first = done;
        while (done < n_positions && positions[done] < start + n_tokens)
            plan_add_output(t, row, positions[done++] - start, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
        if (pipeline_step(p, &t->plan, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        const Mgpt__StepResult *result = step_result_message(p->result);
        assert_int_equal(result->n_logits, done - first);
        for (int i = first; i < done; i++)
            memcpy(logits + (size_t)i * VOCAB, result->logits[i - first]->logits.data,
                   VOCAB * sizeof(float));
    }
    assert_int_equal(done, n_positions);
    free(t);
}

static void release(struct pipeline *p, uint64_t sequence)
{
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    plan_begin(t);
    t->plan.n_release = 1;
    t->release[0] = sequence;
    assert_int_equal(pipeline_step(p, &t->plan, &err), STATUS_OK);
    free(t);
}

/* ---- golden cases ---- */

struct golden_case {
    int ids[ROWS_MAX], n;
    int positions[ROW_OUTPUTS], n_positions;
    const float *expected; /* [n_positions, VOCAB], in the mapped file */
};

struct golden {
    json_t *cases;
    struct safetensors *file;
};

static void golden_open(struct golden *g, const char *model)
{
    struct error err = {.text = ""};
    char path[256];
    snprintf(path, sizeof(path), "%s/tests/golden/%s/cases/cases.json", MGPT_SOURCE_DIR, model);
    g->cases = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(g->cases);
    snprintf(path, sizeof(path), "%s/tests/golden/%s/cases/logits.safetensors", MGPT_SOURCE_DIR,
             model);
    assert_int_equal(safetensors_open(&g->file, path, &err), STATUS_OK);
}

static void golden_close(struct golden *g)
{
    json_decref(g->cases);
    safetensors_close(g->file);
}

static int read_ints(const json_t *list, int *out, int n_max)
{
    int n = (int)json_array_size(list);
    assert_true(n <= n_max);
    for (int i = 0; i < n; i++)
        out[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

static bool golden_case(const struct golden *g, size_t index, struct golden_case *out)
{
    const json_t *item = json_array_get(json_object_get(g->cases, "logits"), index);
    if (!item)
        return false;
    out->n = read_ints(json_object_get(item, "ids"), out->ids, ROWS_MAX);
    out->n_positions = read_ints(json_object_get(item, "positions"), out->positions, ROW_OUTPUTS);
    const struct safetensors_entry *entry =
        safetensors_lookup(g->file, json_string_value(json_object_get(item, "tensor")));
    assert_non_null(entry);
    assert_int_equal(entry->shape[1], VOCAB);
    out->expected = (const float *)(const void *)entry->data;
    return true;
}

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

static const int uncut[] = {0};
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

/* ---- bit for bit ---- */

enum { PREFIX = 600 };
static const int places[] = {0, 63, 64, 255, 256, 257, 511, 512, 599};
enum { N_PLACES = sizeof(places) / sizeof(places[0]) };

/* What everything is compared with: the prefix in one piece through one stage. */
struct bits {
    int ids[ROWS_MAX];
    float *whole, *got; /* [N_PLACES, VOCAB] */
};

static void bits_open(struct bits *b, const char *model, enum dtype compute)
{
    struct golden g;
    struct golden_case *c = malloc(sizeof(*c));
    golden_open(&g, model);
    assert_true(golden_case(&g, 2, c));
    memcpy(b->ids, c->ids, sizeof(b->ids));
    golden_close(&g);
    free(c);
    b->whole = calloc(N_PLACES * VOCAB, sizeof(float));
    b->got = calloc(N_PLACES * VOCAB, sizeof(float));
    struct pipeline p;
    pipeline_open(&p, model, compute, uncut);
    probe(&p, 1, b->ids, 0, PREFIX, PREFIX, places, N_PLACES, b->whole);
    pipeline_close(&p);
}

static void bits_close(struct bits *b)
{
    free(b->whole);
    free(b->got);
}

static void bits_expect_equal(const struct bits *b)
{
    assert_memory_equal(b->whole, b->got, N_PLACES * VOCAB * sizeof(float));
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

static void test_cuts_change_no_bit(void **state)
{
    (void)state;
    static const int cuts[][STAGES_MAX] = {{1}, {3}, {5}, {1, 5}, {2, 4}, {1, 2, 3, 4, 5}};
    for (int i = 0; i < 2; i++) {
        struct bits b;
        enum dtype compute = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        bits_open(&b, "v7b", compute);
        for (size_t c = 0; c < sizeof(cuts) / sizeof(cuts[0]); c++) {
            struct pipeline p;
            pipeline_open(&p, "v7b", compute, cuts[c]);
            probe(&p, 1, b.ids, 0, PREFIX, 100, places, N_PLACES, b.got);
            bits_expect_equal(&b);
            pipeline_close(&p);
        }
        bits_close(&b);
    }
}

/* Fills every KV block with NaN, as a sequence that went bad may leave it. */
static void spoil_cache(struct pipeline *p)
{
    for (int k = 0; k < p->n_stages; k++)
        for (int l = 0; l < p->stages[k]->weights->n_layers; l++) {
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

/* A window that was guessed wrong is overwritten; a fork continues as its origin would have. */
static void test_overwrite_and_fork(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, (const int[]){3, 0});
    int wrong[PREFIX];
    for (int i = 0; i < PREFIX; i++)
        wrong[i] = i < 100 ? b.ids[i] : b.ids[PREFIX - i];
    probe(&p, 1, wrong, 0, 300, 300, NULL, 0, NULL);
    plan_begin(t);
    t->plan.forks = t->fork_list;
    t->fork_list[0] = &t->fork;
    t->plan.n_forks = 1;
    mgpt__fork__init(&t->fork);
    t->fork.from = 1;
    t->fork.to = 2;
    t->fork.n_positions = 100;
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    probe(&p, 1, b.ids, 90, PREFIX, 64, places + 3, N_PLACES - 3, b.got + 3 * VOCAB);
    memcpy(b.got, b.whole, 3 * VOCAB * sizeof(float));
    bits_expect_equal(&b);
    memset(b.got, 0, N_PLACES * VOCAB * sizeof(float));
    probe(&p, 2, b.ids, 100, PREFIX, 300, places + 3, N_PLACES - 3, b.got + 3 * VOCAB);
    memcpy(b.got, b.whole, 3 * VOCAB * sizeof(float));
    bits_expect_equal(&b);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* ---- draws ---- */

/* A guided best token equals the argmax over codes of u + g (c - u) of the two sequences' own
 * logits. */
static void test_guided_draw(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, (const int[]){2, 0});
    float *c = malloc(VOCAB * sizeof(float)), *u = malloc(VOCAB * sizeof(float));
    probe(&p, 1, b.ids, 0, 40, 40, (const int[]){39}, 1, c);
    probe(&p, 2, b.ids + 20, 0, 20, 20, (const int[]){19}, 1, u);
    int best = -1;
    struct vocabulary *vocabulary;
    assert_int_equal(
        model_vocabulary_load(&vocabulary, MGPT_SOURCE_DIR "/tests/golden/v7b/model", &err),
        STATUS_OK);
    for (int i = 0; i < VOCAB; i++) {
        if (vocabulary_code(vocabulary, i) < 0)
            continue;
        float l = u[i] + 4 * (c[i] - u[i]);
        if (best < 0 || l > u[best] + 4 * (c[best] - u[best]))
            best = i;
    }
    vocabulary_destroy(vocabulary);
    plan_begin(t);
    t->sampling.guidance = 4;
    Mgpt__Row *row = plan_add_row(t, 3, 0, b.ids, 40);
    row->role = MGPT__ROW_ROLE__ROW_CONDITIONAL;
    plan_add_output(t, row, 39, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    row = plan_add_row(t, 4, 0, b.ids + 20, 20);
    row->role = MGPT__ROW_ROLE__ROW_UNCONDITIONAL;
    plan_add_output(t, row, 19, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(plan_check_result(result, &t->plan, true, VOCAB, &err), STATUS_OK);
    assert_int_equal(result->n_drawn, 1);
    assert_int_equal(result->drawn[0]->token, best);
    pipeline_close(&p);
    bits_close(&b);
    free(c);
    free(u);
    free(t);
}

/* Codes, text with forbidden ids, listed ids and whole logits in one plan, answered in its order.
 */
static void test_mixed_outputs(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    uint32_t listed[] = {8805, 8810, 8811};
    bits_open(&b, "v7b", DTYPE_BF16);
    pipeline_open(&p, "v7b", DTYPE_BF16, uncut);
    plan_begin(t);
    Mgpt__Row *row = plan_add_row(t, 1, 0, b.ids, 10);
    Mgpt__Output *text = plan_add_output(t, row, 3, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    text->set = MGPT__TOKEN_SET__SET_TEXT;
    plan_add_output(t, row, 3, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
    plan_add_output(t, row, 5, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    Mgpt__Output *list = plan_add_output(t, row, 6, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    list->set = MGPT__TOKEN_SET__SET_LISTED;
    list->allowed = listed;
    list->n_allowed = 3;
    Mgpt__Output *barred = plan_add_output(t, row, 6, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    barred->set = MGPT__TOKEN_SET__SET_TEXT;
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(plan_check_result(result, &t->plan, true, VOCAB, &err), STATUS_OK);
    assert_int_equal(result->n_drawn, 4);
    assert_int_equal(result->n_logits, 1);
    assert_true(result->drawn[1]->token >= 4 && result->drawn[1]->token <= 8195);
    assert_true(result->drawn[2]->token == 8805 || result->drawn[2]->token == 8810 ||
                result->drawn[2]->token == 8811);
    uint32_t best_text = result->drawn[3]->token;
    assert_true(best_text > 8195 || best_text < 4);
    barred->forbidden = &best_text;
    barred->n_forbidden = 1;
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    assert_int_not_equal(step_result_message(p.result)->drawn[3]->token, best_text);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* ---- failures ---- */

/* A plan that cannot be done changes nothing before `start`, and the next one goes well. */
static void test_refused_plans(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, uncut);
    probe(&p, 1, b.ids, 0, 200, 200, NULL, 0, NULL);
    plan_begin(t);
    plan_add_row(t, 1, 201, b.ids, 1);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "starts at position 201, it holds 200"));
    plan_begin(t);
    plan_add_row(t, 1, 200, b.ids + 200, 100);
    plan_add_row(t, 2, 0, b.ids, 1000);
    plan_add_row(t, 3, 1, b.ids, 1);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_INVALID);
    assert_int_equal(stage_kv_used(p.stages[0]), 4);
    for (uint64_t s = 10; s < 13; s++)
        probe(&p, s, b.ids, 0, 1100, 1100, NULL, 0, NULL);
    plan_begin(t);
    plan_add_row(t, 13, 0, b.ids, 1100);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_NOMEM);
    assert_non_null(strstr(err.text, "needs 18 KV blocks, 6 of 64 are free"));
    for (uint64_t s = 10; s < 14; s++)
        release(&p, s);
    probe(&p, 1, b.ids, 200, PREFIX, 64, places + 3, N_PLACES - 3, b.got + 3 * VOCAB);
    memcpy(b.got, b.whole, 3 * VOCAB * sizeof(float));
    bits_expect_equal(&b);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* NaN in one layer's weights, as broken memory would give it: each row is reported with its layer
 * and position. */
static void test_not_finite_in_a_layer(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, uncut);
    struct stage *stage = p.stages[0];
    float *bad = calloc((size_t)stage->config.inter, sizeof(*bad));
    bad[5] = NAN;
    linear_weight_set(stage->weights->layers[2].down, 7, 1, bad, DTYPE_F32);
    plan_begin(t);
    Mgpt__Row *row = plan_add_row(t, 5, 0, b.ids, 10);
    plan_add_output(t, row, 9, MGPT__OUTPUT_KIND__OUTPUT_DRAW);
    assert_int_equal(pipeline_step(&p, &t->plan, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(plan_check_result(result, &t->plan, true, VOCAB, &err), STATUS_OK);
    assert_int_equal(result->n_drawn, 0);
    assert_int_equal(result->n_errors, 2);
    assert_int_equal(result->errors[0]->output, 0);
    assert_int_equal(result->errors[0]->position, 9);
    assert_int_equal(result->errors[1]->unit, 3);
    assert_int_equal(result->errors[1]->position, 0);
    assert_string_equal(result->errors[1]->text,
                        "sequence 5, position 0: numbers stop being finite in unit '2'");
    free(bad);
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

/* One row comes in with NaN: it fails alone, the other row's bits are what they were. */
static void test_not_finite_row_fails_alone(void **state)
{
    (void)state;
    struct error err = {.text = ""};
    struct test_plan *t = calloc(1, sizeof(*t));
    struct bits b;
    struct pipeline p;
    bits_open(&b, "v7b", DTYPE_F32);
    pipeline_open(&p, "v7b", DTYPE_F32, (const int[]){2, 0});
    plan_begin(t);
    t->plan.epoch = t->plan.number = 1;
    plan_add_row(t, 1, 0, b.ids, 10);
    Mgpt__Row *row = plan_add_row(t, 2, 0, b.ids, 64);
    plan_add_output(t, row, 0, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
    plan_add_output(t, row, 63, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
    step_result_begin(p.result, 1, 1, 0);
    assert_int_equal(stage_step(p.stages[0], &t->plan, NULL, p.result, &err), STATUS_OK);
    size_t hidden = (size_t)stage_hidden(p.stages[0]);
    memcpy(p.rows, stage_rows_view(p.stages[0]), 74 * hidden * sizeof(float));
    ((float *)(void *)p.rows)[4 * hidden + 3] = INFINITY;
    step_result_begin(p.result, 1, 1, 1);
    assert_int_equal(stage_step(p.stages[1], &t->plan, p.rows, p.result, &err), STATUS_OK);
    const Mgpt__StepResult *result = step_result_message(p.result);
    assert_int_equal(result->n_errors, 1);
    assert_int_equal(result->errors[0]->sequence, 1);
    assert_int_equal(result->errors[0]->position, 4);
    assert_int_equal(result->errors[0]->unit, -1);
    assert_int_equal(result->n_logits, 2);
    assert_memory_equal(result->logits[0]->logits.data, b.whole, VOCAB * sizeof(float));
    assert_memory_equal(result->logits[1]->logits.data, b.whole + VOCAB, VOCAB * sizeof(float));
    pipeline_close(&p);
    bits_close(&b);
    free(t);
}

static void test_format_units(void **state)
{
    (void)state;
    static const struct {
        int first, last;
        const char *text;
    } cases[] = {{0, 0, "embed"}, {0, 5, "embed,0-3,head"}, {0, 1, "embed,0"}, {1, 1, "0"},
                 {2, 4, "1-3"},   {4, 5, "3,head"},         {5, 5, "head"},    {0, 4, "embed,0-3"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];
        stage_format_units(text, sizeof(text), cases[i].first, cases[i].last, 4);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_f32),
        cmocka_unit_test(test_golden_bf16),
        cmocka_unit_test(test_chunks_change_no_bit),
        cmocka_unit_test(test_cuts_change_no_bit),
        cmocka_unit_test(test_company_changes_no_bit),
        cmocka_unit_test(test_overwrite_and_fork),
        cmocka_unit_test(test_guided_draw),
        cmocka_unit_test(test_mixed_outputs),
        cmocka_unit_test(test_refused_plans),
        cmocka_unit_test(test_not_finite_in_a_layer),
        cmocka_unit_test(test_not_finite_row_fails_alone),
        cmocka_unit_test(test_format_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
