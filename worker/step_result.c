/*
 * step_result.c - arrays of items and arrays of pointers to them, as protobuf-c wants repeated
 * fields.
 */
#include "worker/step_result.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct step_result {
    Mgpt__StepResult message;
    char text[ERROR_TEXT_BYTES];
    int outputs_max;
    Mgpt__DrawnToken *drawn; /* [outputs_max] */
    Mgpt__DrawnToken **drawn_list;
    Mgpt__LogitsRow logits[PLAN_LOGITS_MAX]; /* their bytes are owned */
    Mgpt__LogitsRow *logits_list[PLAN_LOGITS_MAX];
    Mgpt__RowError errors[PLAN_ROW_ERRORS_MAX];
    Mgpt__RowError *errors_list[PLAN_ROW_ERRORS_MAX];
    char error_texts[PLAN_ROW_ERRORS_MAX][ERROR_TEXT_BYTES];
};

enum status step_result_create(struct step_result **out, int outputs_max, struct error *err)
{
    *out = NULL;
    struct step_result *result = calloc(1, sizeof(*result));
    if (result) {
        result->outputs_max = outputs_max;
        result->drawn = calloc((size_t)outputs_max, sizeof(*result->drawn));
        result->drawn_list = calloc((size_t)outputs_max, sizeof(*result->drawn_list));
    }
    if (!result || !result->drawn || !result->drawn_list) {
        step_result_destroy(result);
        return error_set(err, STATUS_NOMEM, "cannot allocate a result of %d outputs", outputs_max);
    }
    mgpt__step_result__init(&result->message);
    *out = result;
    return STATUS_OK;
}

static void free_logits(struct step_result *result)
{
    for (size_t i = 0; i < result->message.n_logits; i++)
        free(result->logits[i].logits.data);
    result->message.n_logits = 0;
}

void step_result_destroy(struct step_result *result)
{
    if (!result)
        return;
    free_logits(result);
    free(result->drawn);
    free(result->drawn_list);
    free(result);
}

void step_result_begin(struct step_result *result, uint64_t epoch, uint64_t number,
                       uint32_t stage_index)
{
    free_logits(result);
    mgpt__step_result__init(&result->message);
    result->message.epoch = epoch;
    result->message.number = number;
    result->message.stage_index = stage_index;
    result->message.drawn = result->drawn_list;
    result->message.logits = result->logits_list;
    result->message.errors = result->errors_list;
}

void step_result_fail(struct step_result *result, enum status status, const char *text)
{
    CHECK(status != STATUS_OK);
    free_logits(result);
    result->message.n_drawn = 0;
    result->message.n_errors = 0;
    snprintf(result->text, sizeof(result->text), "%s", text);
    result->message.status = (uint32_t)status;
    result->message.text = result->text;
}

void step_result_add_drawn(struct step_result *result, uint32_t row, uint32_t output,
                           uint32_t token)
{
    size_t i = result->message.n_drawn++;
    CHECK(i < (size_t)result->outputs_max);
    Mgpt__DrawnToken *drawn = &result->drawn[i];
    mgpt__drawn_token__init(drawn);
    drawn->row = row;
    drawn->output = output;
    drawn->token = token;
    result->drawn_list[i] = drawn;
}

float *step_result_add_logits(struct step_result *result, uint32_t row, uint32_t output,
                              uint32_t vocab)
{
    float *values = malloc(vocab * sizeof(*values));
    if (!values)
        return NULL;
    size_t i = result->message.n_logits++;
    CHECK(i < PLAN_LOGITS_MAX);
    Mgpt__LogitsRow *logits = &result->logits[i];
    mgpt__logits_row__init(logits);
    logits->row = row;
    logits->output = output;
    logits->logits = (ProtobufCBinaryData){vocab * sizeof(*values), (uint8_t *)values};
    result->logits_list[i] = logits;
    return values;
}

void step_result_drop_logits(struct step_result *result)
{
    CHECK(result->message.n_logits > 0);
    free(result->logits[--result->message.n_logits].logits.data);
}

enum status step_result_add_error(struct step_result *result, const struct step_error *error,
                                  const char *format, ...)
{
    size_t i = result->message.n_errors;
    if (i == PLAN_ROW_ERRORS_MAX)
        return STATUS_FULL;
    result->message.n_errors++;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(result->error_texts[i], ERROR_TEXT_BYTES, format, arguments);
    va_end(arguments);
    Mgpt__RowError *item = &result->errors[i];
    mgpt__row_error__init(item);
    item->row = error->row;
    item->output = error->output;
    item->sequence = error->sequence;
    item->position = error->position;
    item->unit = error->unit;
    item->status = (uint32_t)error->status;
    item->text = result->error_texts[i];
    result->errors_list[i] = item;
    return STATUS_OK;
}

Mgpt__StepResult *step_result_message(struct step_result *result)
{
    return &result->message;
}
