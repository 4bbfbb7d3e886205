/*
 * stage_test_tools.h - for the tests of the stage: a pipeline in this process, plans with their
 * parts in place, the golden cases, and the prefix that everything is compared with bit for bit.
 * Each test program includes it once.
 */
#ifndef MGPT_WORKER_STAGE_TEST_TOOLS_H
#define MGPT_WORKER_STAGE_TEST_TOOLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include "model/safetensors.h"
#include "worker/model_vocabulary.h"
#include "worker/stage_state.h"

enum { STAGES_MAX = 16, ROWS_MAX = 1200, KV_BLOCKS = 64, VOCAB = 10240 };

static const int uncut[] = {0};

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
static inline void pipeline_open_on(struct pipeline *p, enum device_kind device, const char *model,
                                    enum dtype compute, const int *cuts)
{
    struct error err = {.text = ""};
    char folder[256];
    snprintf(folder, sizeof(folder), "%s/tests/golden/%s/model", MGPT_SOURCE_DIR, model);
    memset(p, 0, sizeof(*p));
    struct stream_options stream_options = {.n_threads = 2, .device = device};
    struct checkpoint *checkpoint;
    struct vocabulary *vocabulary;
    assert_int_equal(stream_create(&p->stream, &stream_options, &err), STATUS_OK);
    assert_int_equal(checkpoint_open(&checkpoint, folder, &err), STATUS_OK);
    assert_int_equal(model_vocabulary_load(&vocabulary, folder, &err), STATUS_OK);
    p->n_units = units_count(checkpoint_config(checkpoint)->n_layers);
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

static inline void pipeline_open(struct pipeline *p, const char *model, enum dtype compute,
                                 const int *cuts)
{
    pipeline_open_on(p, DEVICE_CPU, model, compute, cuts);
}

static inline void pipeline_close(struct pipeline *p)
{
    for (int k = 0; k < p->n_stages; k++)
        stage_destroy(p->stages[k]);
    step_result_destroy(p->result);
    stream_destroy(p->stream);
    free(p->rows);
}

/* Through all stages; the result of the last is in p->result. */
static inline enum status pipeline_step(struct pipeline *p, Mgpt__StepPlan *plan, struct error *err)
{
    plan->epoch = 1;
    plan->number = ++p->number;
    for (int k = 0; k < p->n_stages; k++) {
        struct stage *stage = p->stages[k];
        step_result_begin(p->result, 1, plan->number, (uint32_t)k);
        struct stage_input input = {.rows = p->rows};
        enum status st = stage_step(stage, plan, k > 0 ? &input : NULL, p->result, err);
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

static inline void plan_begin(struct test_plan *t)
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

static inline Mgpt__Row *plan_add_row(struct test_plan *t, uint64_t sequence, int start,
                                      const int *ids, int n)
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

static inline Mgpt__Output *plan_add_output(struct test_plan *t, Mgpt__Row *row, int offset,
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
static inline void probe(struct pipeline *p, uint64_t sequence, const int *ids, int from, int n,
                         int chunk, const int *positions, int n_positions, float *logits)
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

static inline void release(struct pipeline *p, uint64_t sequence)
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

static inline void golden_open(struct golden *g, const char *model)
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

static inline void golden_close(struct golden *g)
{
    json_decref(g->cases);
    safetensors_close(g->file);
}

static inline int read_ints(const json_t *list, int *out, int n_max)
{
    int n = (int)json_array_size(list);
    assert_true(n <= n_max);
    for (int i = 0; i < n; i++)
        out[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

static inline bool golden_case(const struct golden *g, size_t index, struct golden_case *out)
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

/* ---- bit for bit ---- */

enum { PREFIX = 600 };
static const int places[] = {0, 63, 64, 255, 256, 257, 511, 512, 599};
enum { N_PLACES = sizeof(places) / sizeof(places[0]) };

/* What everything is compared with: the prefix in one piece through one stage. */
struct bits {
    int ids[ROWS_MAX];
    float *whole, *got; /* [N_PLACES, VOCAB] */
};

static inline void bits_open(struct bits *b, const char *model, enum dtype compute)
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

static inline void bits_close(struct bits *b)
{
    free(b->whole);
    free(b->got);
}

static inline void bits_expect_equal(const struct bits *b)
{
    assert_memory_equal(b->whole, b->got, N_PLACES * VOCAB * sizeof(float));
}

#endif
