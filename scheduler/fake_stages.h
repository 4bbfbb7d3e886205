/*
 * fake_stages.h - for tests: a vocabulary made by hand, and the memory of the stages as a plain
 * model.
 *
 * The model executes plans as every stage does: releases, then forks, then rows; it holds the
 * tokens of each sequence, counts blocks with sharing, and draws tokens as a function of exactly
 * what the sequences hold. So a wrong start, a missing token, a leak or a pool overrun shows, and a
 * request's tokens are the same however it was scheduled.
 */
#ifndef MGPT_SCHEDULER_FAKE_STAGES_H
#define MGPT_SCHEDULER_FAKE_STAGES_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/scheduler.h"
#include "model/vocabulary.h"

enum {
    FAKE_TEXTS = 32, /* ids 0..31 are text, of these: */
    FAKE_BOS = 0,
    FAKE_END_OF_TURN = 1,
    FAKE_SEPARATOR = 2,
    FAKE_IMAGE_START = 32,
    FAKE_IMAGE_END,
    FAKE_NEW_LINE,
    FAKE_SIZE_BASE, /* + pixels / 32 */
    FAKE_SIZES = 64,
    FAKE_CODE_BASE = FAKE_SIZE_BASE + FAKE_SIZES + 1,
    FAKE_CODES = 512,
    FAKE_IDS = FAKE_CODE_BASE + FAKE_CODES,
    FAKE_SEQUENCES_MAX = 8192
};

struct fake_vocabulary {
    struct vocabulary vocabulary;
    int32_t code_to_id[FAKE_CODES], id_to_code[FAKE_IDS], size_to_id[FAKE_SIZES + 1],
        id_to_size[FAKE_IDS];
};

static inline void fake_vocabulary_init(struct fake_vocabulary *f)
{
    for (int i = 0; i < FAKE_IDS; i++) {
        f->id_to_code[i] = i >= FAKE_CODE_BASE ? (i - FAKE_CODE_BASE) : -1;
        f->id_to_size[i] = i > FAKE_SIZE_BASE && i < FAKE_CODE_BASE ? i - FAKE_SIZE_BASE : 0;
    }
    for (int i = 0; i < FAKE_CODES; i++)
        f->code_to_id[i] = FAKE_CODE_BASE + i;
    for (int i = 0; i <= FAKE_SIZES; i++)
        f->size_to_id[i] = i ? FAKE_SIZE_BASE + i : -1;
    f->vocabulary = (struct vocabulary){.n_ids = FAKE_IDS,
                                        .bos = FAKE_BOS,
                                        .pad = -1,
                                        .image_start = FAKE_IMAGE_START,
                                        .image_end = FAKE_IMAGE_END,
                                        .new_line = FAKE_NEW_LINE,
                                        .end_of_turn = FAKE_END_OF_TURN,
                                        .n_codes = FAKE_CODES,
                                        .code_to_id = f->code_to_id,
                                        .id_to_code = f->id_to_code,
                                        .code_id_min = FAKE_CODE_BASE,
                                        .code_id_max = FAKE_IDS - 1,
                                        .n_sizes = FAKE_SIZES,
                                        .size_to_id = f->size_to_id,
                                        .id_to_size = f->id_to_size};
}

static inline uint64_t fake_mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 29);
}

/* Fills prompt[n_text + 4]: start of the conversation, n_text ids, then start, height and width.
 * The first n_same ids are the same for every salt. Returns the length. */
static inline int fake_alike_prompt(int32_t *prompt, int n_same, int n_text, int width, int height,
                                    uint32_t salt)
{
    int n = 0;
    prompt[n++] = FAKE_BOS;
    for (int i = 0; i < n_text; i++) {
        uint64_t hash = fake_mix(fake_mix(7, i < n_same ? 0 : 1 + (uint64_t)salt), (uint64_t)i);
        prompt[n++] = 3 + (int32_t)(hash % (FAKE_TEXTS - 3));
    }
    prompt[n++] = FAKE_IMAGE_START;
    prompt[n++] = FAKE_SIZE_BASE + height / 32;
    prompt[n++] = FAKE_SIZE_BASE + width / 32;
    return n;
}

static inline int fake_picture_prompt(int32_t *prompt, int n_text, int width, int height,
                                      uint32_t salt)
{
    return fake_alike_prompt(prompt, 0, n_text, width, height, salt);
}

struct fake_block {
    int readers;
};

struct fake_sequence {
    uint64_t id; /* 0 = free place */
    int n;       /* positions */
    int32_t *tokens;
    struct fake_block **blocks;
    int n_blocks, capacity;
};

struct fake_stages {
    struct fake_sequence *sequences; /* [FAKE_SEQUENCES_MAX] */
    int n_sequences;
    int blocks_used, blocks_total, blocks_peak;
    uint64_t epoch, next_number;
    int n_shared;     /* forked positions, ever */
    int32_t *answers; /* [answers_max] of the plan last executed */
    int n_answers, answers_max;
    int max_positions, rows_max;
};

static inline void fake_stages_init(struct fake_stages *f, int blocks_total, int max_positions,
                                    int rows_max)
{
    *f = (struct fake_stages){.blocks_total = blocks_total, .epoch = 1, .next_number = 1};
    f->sequences = calloc(FAKE_SEQUENCES_MAX, sizeof(*f->sequences));
    f->answers = calloc((size_t)rows_max, sizeof(*f->answers));
    f->max_positions = max_positions;
    f->rows_max = f->answers_max = rows_max;
    CHECK(f->sequences && f->answers);
}

static inline struct fake_sequence *fake_find(struct fake_stages *f, uint64_t id)
{
    for (int i = 0; i < f->n_sequences; i++) {
        if (f->sequences[i].id == id)
            return &f->sequences[i];
    }
    return NULL;
}

static inline void fake_release(struct fake_stages *f, uint64_t id)
{
    struct fake_sequence *q = fake_find(f, id);
    if (!q)
        return;
    for (int i = 0; i < q->n_blocks; i++) {
        if (--q->blocks[i]->readers == 0) {
            free(q->blocks[i]);
            f->blocks_used--;
        }
    }
    free(q->blocks);
    free(q->tokens);
    *q = f->sequences[--f->n_sequences];
}

static inline void fake_stages_clear(struct fake_stages *f)
{
    while (f->n_sequences > 0)
        fake_release(f, f->sequences[0].id);
}

static inline void fake_stages_fini(struct fake_stages *f)
{
    fake_stages_clear(f);
    free(f->sequences);
    free(f->answers);
}

static inline struct fake_sequence *fake_add(struct fake_stages *f, uint64_t id)
{
    CHECK(id > 0);
    CHECK(f->n_sequences < FAKE_SEQUENCES_MAX);
    struct fake_sequence *q = &f->sequences[f->n_sequences++];
    *q = (struct fake_sequence){.id = id, .capacity = f->max_positions + PLAN_BLOCK_TOKENS};
    q->tokens = calloc((size_t)q->capacity, sizeof(*q->tokens));
    q->blocks = calloc((size_t)(q->capacity / PLAN_BLOCK_TOKENS + 1), sizeof(*q->blocks));
    CHECK(q->tokens && q->blocks);
    return q;
}

/* Blocks of its own for the positions that have none. */
static inline void fake_grow(struct fake_stages *f, struct fake_sequence *q)
{
    while (q->n_blocks * PLAN_BLOCK_TOKENS < q->n) {
        q->blocks[q->n_blocks] = malloc(sizeof(struct fake_block));
        q->blocks[q->n_blocks++]->readers = 1;
        f->blocks_used++;
    }
    CHECK(f->blocks_used <= f->blocks_total);
    if (f->blocks_used > f->blocks_peak)
        f->blocks_peak = f->blocks_used;
}

static inline void fake_fork(struct fake_stages *f, const struct plan_fork *fork)
{
    struct fake_sequence *from = fake_find(f, fork->from);
    CHECK(from != NULL);
    CHECK(fork->n_positions > 0 && fork->n_positions <= from->n);
    CHECK(!fake_find(f, fork->to));
    size_t at = (size_t)(from - f->sequences);
    struct fake_sequence *to = fake_add(f, fork->to);
    from = &f->sequences[at];
    memcpy(to->tokens, from->tokens, (size_t)fork->n_positions * sizeof(to->tokens[0]));
    to->n = fork->n_positions;
    to->n_blocks = fork->n_positions / PLAN_BLOCK_TOKENS;
    for (int i = 0; i < to->n_blocks; i++) {
        to->blocks[i] = from->blocks[i];
        to->blocks[i]->readers++;
    }
    fake_grow(f, to);
    f->n_shared += fork->n_positions;
}

static inline void fake_feed(struct fake_stages *f, const struct plan_row *row)
{
    struct fake_sequence *q = fake_find(f, row->sequence);
    if (!q)
        q = fake_add(f, row->sequence);
    CHECK(row->start == q->n);
    CHECK(row->n_tokens > 0);
    CHECK(row->start + row->n_tokens <= f->max_positions);
    memcpy(q->tokens + q->n, row->tokens, (size_t)row->n_tokens * sizeof(q->tokens[0]));
    q->n += row->n_tokens;
    fake_grow(f, q);
}

/* Of all tokens a sequence holds up to the output: what attention sees. */
static inline uint64_t fake_state(struct fake_stages *f, const struct plan_row *row, int offset)
{
    const struct fake_sequence *q = fake_find(f, row->sequence);
    uint64_t hash = 7;
    for (int i = 0; i <= row->start + offset; i++)
        hash = fake_mix(hash, (uint64_t)q->tokens[i] + 1);
    return hash;
}

static inline int32_t fake_draw(const struct plan_output *output,
                                const struct plan_sampling *sampling, uint64_t state)
{
    uint64_t hash = fake_mix(fake_mix(state, sampling->seed), (uint64_t)output->ordinal);
    hash = fake_mix(hash, sampling->picture_index) >> 8;
    if (output->set == PLAN_SET_CODES)
        return FAKE_CODE_BASE + (int32_t)(hash % FAKE_CODES);
    if (output->set == PLAN_SET_LISTED) {
        CHECK(output->n_listed > 0);
        int few = output->n_listed < 4 ? output->n_listed : 4;
        return output->listed[hash % (uint64_t)few];
    }
    bool may_open = output->n_listed == 0;
    if (may_open && hash % 32 == 5)
        return FAKE_IMAGE_START;
    if (hash % 97 == 0)
        return FAKE_END_OF_TURN;
    return 3 + (int32_t)(hash % (FAKE_TEXTS - 3));
}

static inline void fake_answer(struct fake_stages *f, const struct plan *plan, int index)
{
    const struct plan_row *row = &plan->rows[index];
    const struct plan_row *twin = NULL;
    if (row->role == PLAN_CONDITIONAL) {
        CHECK(index + 1 < plan->n_rows);
        twin = &plan->rows[index + 1];
        CHECK(twin->role == PLAN_UNCONDITIONAL);
        CHECK(twin->request == row->request);
        CHECK(twin->n_outputs == row->n_outputs);
        CHECK(twin->sampling == row->sampling);
    }
    for (int i = 0; i < row->n_outputs; i++) {
        const struct plan_output *output = &row->outputs[i];
        CHECK(output->offset >= 0 && output->offset < row->n_tokens);
        if (output->kind == PLAN_LOGITS) {
            CHECK(row->role == PLAN_PLAIN);
            continue;
        }
        uint64_t state = fake_state(f, row, output->offset);
        if (twin)
            state = fake_mix(state, fake_state(f, twin, twin->outputs[i].offset));
        CHECK(f->n_answers < f->answers_max);
        f->answers[f->n_answers++] = fake_draw(output, &plan->samplings[row->sampling], state);
    }
}

/* Executes a plan. The answers are in f->answers until the next one. */
static inline void fake_execute(struct fake_stages *f, const struct plan *plan)
{
    int n_tokens = 0;
    int64_t n_context = 0;
    CHECK(plan->epoch == f->epoch);
    CHECK(plan->number == f->next_number);
    f->next_number++;
    f->n_answers = 0;
    for (int i = 0; i < plan->n_release; i++)
        fake_release(f, plan->release[i]);
    for (int i = 0; i < plan->n_forks; i++)
        fake_fork(f, &plan->forks[i]);
    for (int i = 0; i < plan->n_rows; i++) {
        for (int k = 0; k < i; k++)
            CHECK(plan->rows[k].sequence != plan->rows[i].sequence);
        CHECK(plan->rows[i].sampling >= 0 && plan->rows[i].sampling < plan->n_samplings);
        fake_feed(f, &plan->rows[i]);
        n_tokens += plan->rows[i].n_tokens;
        n_context += plan->rows[i].start + plan->rows[i].n_tokens;
    }
    for (int i = 0; i < plan->n_rows; i++) {
        if (plan->rows[i].role != PLAN_UNCONDITIONAL)
            fake_answer(f, plan, i);
        else
            CHECK(i > 0 && plan->rows[i - 1].role == PLAN_CONDITIONAL);
    }
    CHECK(n_tokens == plan->n_tokens);
    CHECK(n_tokens <= f->rows_max);
    CHECK(n_context == plan->n_context);
    CHECK(f->n_answers == plan->n_draws);
}

#endif
