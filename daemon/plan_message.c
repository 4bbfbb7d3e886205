/*
 * plan_message.c - counts what a plan needs, takes it from one block, fills it.
 */
#include "daemon/plan_message.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/plan.h"

enum { ALIGN_BYTES = 16 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static size_t list_bytes(size_t n, size_t item_bytes)
{
    return aligned(n * item_bytes) + aligned(n * sizeof(void *));
}

static size_t needed_bytes(const struct plan *plan)
{
    size_t bytes = list_bytes((size_t)plan->n_rows, sizeof(Mgpt__Row)) +
                   list_bytes((size_t)plan->n_forks, sizeof(Mgpt__Fork)) +
                   list_bytes((size_t)plan->n_samplings, sizeof(Mgpt__Sampling));
    for (int i = 0; i < plan->n_rows; i++)
        bytes += list_bytes((size_t)plan->rows[i].n_outputs, sizeof(Mgpt__Output));
    return bytes;
}

static void *take(struct plan_message *message, size_t bytes)
{
    void *start = message->memory + message->used_bytes;
    message->used_bytes += aligned(bytes);
    CHECK(message->used_bytes <= message->memory_bytes);
    return start;
}

/* int32_t and uint32_t views of the same ids: all ids are below 2^31. */
static uint32_t *as_u32(const int32_t *ids)
{
    return (uint32_t *)(uintptr_t)ids;
}

static Mgpt__Output **build_outputs(struct plan_message *message, const struct plan_row *row)
{
    static const Mgpt__TokenSet sets[] = {[PLAN_SET_TEXT] = MGPT__TOKEN_SET__SET_TEXT,
                                          [PLAN_SET_CODES] = MGPT__TOKEN_SET__SET_CODES,
                                          [PLAN_SET_LISTED] = MGPT__TOKEN_SET__SET_LISTED};
    Mgpt__Output *items = take(message, (size_t)row->n_outputs * sizeof(*items));
    Mgpt__Output **list = take(message, (size_t)row->n_outputs * sizeof(*list));
    for (int i = 0; i < row->n_outputs; i++) {
        const struct plan_output *from = &row->outputs[i];
        Mgpt__Output *to = list[i] = &items[i];
        mgpt__output__init(to);
        to->offset = (uint32_t)from->offset;
        to->kind = from->kind == PLAN_LOGITS ? MGPT__OUTPUT_KIND__OUTPUT_LOGITS
                                             : MGPT__OUTPUT_KIND__OUTPUT_DRAW;
        to->set = sets[from->set];
        to->ordinal = (uint32_t)from->ordinal;
        if (from->set == PLAN_SET_LISTED) {
            to->n_allowed = (size_t)from->n_listed;
            to->allowed = as_u32(from->listed);
        } else if (from->set == PLAN_SET_TEXT) {
            to->n_forbidden = (size_t)from->n_listed;
            to->forbidden = as_u32(from->listed);
        }
    }
    return list;
}

static void build_rows(struct plan_message *message, const struct plan *plan)
{
    static const Mgpt__RowRole roles[] = {[PLAN_PLAIN] = MGPT__ROW_ROLE__ROW_PLAIN,
                                          [PLAN_CONDITIONAL] = MGPT__ROW_ROLE__ROW_CONDITIONAL,
                                          [PLAN_UNCONDITIONAL] = MGPT__ROW_ROLE__ROW_UNCONDITIONAL};
    Mgpt__Row *items = take(message, (size_t)plan->n_rows * sizeof(*items));
    message->body.rows = take(message, (size_t)plan->n_rows * sizeof(*message->body.rows));
    message->body.n_rows = (size_t)plan->n_rows;
    for (int i = 0; i < plan->n_rows; i++) {
        const struct plan_row *from = &plan->rows[i];
        Mgpt__Row *to = message->body.rows[i] = &items[i];
        mgpt__row__init(to);
        to->sequence = from->sequence;
        to->start = (uint32_t)from->start;
        to->n_tokens = (size_t)from->n_tokens;
        to->tokens = as_u32(from->tokens);
        to->role = roles[from->role];
        to->sampling = (uint32_t)from->sampling;
        to->n_outputs = (size_t)from->n_outputs;
        to->outputs = build_outputs(message, from);
    }
}

static void build_forks(struct plan_message *message, const struct plan *plan)
{
    Mgpt__Fork *items = take(message, (size_t)plan->n_forks * sizeof(*items));
    message->body.forks = take(message, (size_t)plan->n_forks * sizeof(*message->body.forks));
    message->body.n_forks = (size_t)plan->n_forks;
    for (int i = 0; i < plan->n_forks; i++) {
        Mgpt__Fork *to = message->body.forks[i] = &items[i];
        mgpt__fork__init(to);
        to->from = plan->forks[i].from;
        to->to = plan->forks[i].to;
        to->n_positions = (uint32_t)plan->forks[i].n_positions;
    }
}

static void build_samplings(struct plan_message *message, const struct plan *plan)
{
    Mgpt__Sampling *items = take(message, (size_t)plan->n_samplings * sizeof(*items));
    message->body.sampling =
        take(message, (size_t)plan->n_samplings * sizeof(*message->body.sampling));
    message->body.n_sampling = (size_t)plan->n_samplings;
    for (int i = 0; i < plan->n_samplings; i++) {
        const struct plan_sampling *from = &plan->samplings[i];
        Mgpt__Sampling *to = message->body.sampling[i] = &items[i];
        mgpt__sampling__init(to);
        to->seed = from->seed;
        to->picture_index = from->picture_index;
        to->temperature = from->temperature;
        to->image_top_k = (uint32_t)from->image_top_k;
        to->text_top_k = (uint32_t)from->text_top_k;
        to->guidance = from->guidance;
    }
}

enum status plan_message_build(struct plan_message *message, const struct plan *plan,
                               struct error *err)
{
    size_t bytes = needed_bytes(plan);
    if (bytes > message->memory_bytes) {
        char *memory = realloc(message->memory, bytes);
        if (!memory)
            return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes for a plan", bytes);
        message->memory = memory;
        message->memory_bytes = bytes;
    }
    message->used_bytes = 0;
    mgpt__step_plan__init(&message->body);
    message->body.epoch = plan->epoch;
    message->body.number = plan->number;
    message->body.n_release = (size_t)plan->n_release;
    message->body.release = (uint64_t *)(uintptr_t)plan->release;
    build_forks(message, plan);
    build_rows(message, plan);
    build_samplings(message, plan);
    return STATUS_OK;
}

void plan_message_fini(struct plan_message *message)
{
    free(message->memory);
    memset(message, 0, sizeof(*message));
}

static const Mgpt__DrawnToken *find_drawn(const Mgpt__StepResult *result, int row, int output,
                                          size_t *hint)
{
    /* Workers answer in the order of rows, so the next one is nearly always the right one. */
    for (size_t k = 0; k < result->n_drawn; k++) {
        const Mgpt__DrawnToken *drawn = result->drawn[(*hint + k) % result->n_drawn];
        if ((int)drawn->row == row && (int)drawn->output == output) {
            *hint = (*hint + k + 1) % result->n_drawn;
            return drawn;
        }
    }
    return NULL;
}

void plan_message_read_result(const Mgpt__StepResult *result, const struct plan *plan,
                              int32_t *tokens, struct plan_row_failure *failures, int *n_failures)
{
    int n = 0;
    size_t hint = 0;
    for (int r = 0; r < plan->n_rows; r++) {
        const struct plan_row *row = &plan->rows[r];
        if (row->role == PLAN_UNCONDITIONAL)
            continue;
        for (int o = 0; o < row->n_outputs; o++) {
            if (row->outputs[o].kind != PLAN_DRAW)
                continue;
            const Mgpt__DrawnToken *drawn = find_drawn(result, r, o, &hint);
            CHECK(n < plan->n_draws);
            tokens[n++] = drawn ? (int32_t)drawn->token : 0;
        }
    }
    CHECK(n == plan->n_draws);
    *n_failures = 0;
    /* Rows first, outputs behind them: a row's error names the layer where it went wrong, its
     * output's only that the logits are bad. */
    for (int of_output = 0; of_output <= 1; of_output++)
        for (size_t i = 0; i < result->n_errors && *n_failures < plan->n_rows; i++) {
            const Mgpt__RowError *error = result->errors[i];
            if ((error->output != PLAN_WHOLE_ROW) == of_output)
                failures[(*n_failures)++] =
                    (struct plan_row_failure){.row = (int)error->row, .text = error->text};
        }
}
