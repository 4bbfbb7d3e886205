/*
 * stage_head.c - outputs are sorted into runs that need the same range of ids; each run is
 * gathered, normed, multiplied and drawn from in batches.
 */
#include "worker/stage_head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "worker/token_sets.h"

enum {
    HEAD_LOGITS_FLOATS = 4 << 20, /* logits of a batch; more when two whole rows need it */
    HEAD_ROWS_MAX = 512           /* hidden states of a batch */
};

enum { DRAWN_NOTHING = -1, DRAWN_BAD = -2, DRAWN_LOGITS = -3 };

/* One output of the plan. */
struct wanted {
    uint32_t row, output;
    const Mgpt__Row *plan_row;
    const Mgpt__Output *plan_output;
    const Mgpt__Sampling *sampling;
    int token, twin_token; /* rows of x; twin -1 without guidance */
    int32_t drawn;         /* the id, or one of the above */
};

struct stage_head {
    const struct stage_weights *weights; /* borrowed */
    struct token_sets sets;
    int outputs_max;
    size_t logits_floats;
    float *logits;  /* device [logits_floats] of a batch, row after row */
    void *gathered; /* device [HEAD_ROWS_MAX, hidden] */
    size_t gathered_bytes;
    struct wanted *wanted;           /* [outputs_max] in the order of the plan */
    struct wanted **order;           /* [outputs_max] codes first, then the rest */
    struct sample_request *requests; /* [HEAD_ROWS_MAX] */
    int32_t ids[HEAD_ROWS_MAX];      /* rows of x to gather; then what was drawn */
};

static size_t logits_floats(const struct model_config *config)
{
    size_t vocab = (size_t)config->vocab;
    return 2 * vocab > HEAD_LOGITS_FLOATS ? 2 * vocab : HEAD_LOGITS_FLOATS;
}

static size_t gathered_bytes(const struct model_config *config, enum dtype compute)
{
    return (size_t)HEAD_ROWS_MAX * (size_t)config->hidden * dtype_bytes(compute);
}

size_t stage_head_work_bytes(const struct model_config *config, enum dtype compute)
{
    return logits_floats(config) * sizeof(float) + gathered_bytes(config, compute);
}

static enum status allocate(struct stage_head *head, struct error *err)
{
    struct stream *stream = head->weights->stream;
    size_t n = (size_t)head->outputs_max;
    head->logits_floats = logits_floats(&head->weights->config);
    head->gathered_bytes = gathered_bytes(&head->weights->config, head->weights->compute);
    head->wanted = calloc(n, sizeof(*head->wanted));
    head->order = calloc(n, sizeof(*head->order));
    head->requests = calloc(HEAD_ROWS_MAX, sizeof(*head->requests));
    if (!head->wanted || !head->order || !head->requests)
        return error_set(err, STATUS_NOMEM, "cannot allocate lists of %d outputs",
                         head->outputs_max);
    enum status st =
        stream_alloc(stream, (void **)&head->logits, head->logits_floats * sizeof(float), err);
    if (st == STATUS_OK)
        st = stream_alloc(stream, &head->gathered, head->gathered_bytes, err);
    /* What token_sets_range() gives: products of other sizes would have to be tested in a step. */
    head->sets.is_list_whole = stream_device(stream) != NULL;
    if (st == STATUS_OK)
        st = linear_prepare_range(head->weights->head, head->sets.codes_n, err);
    if (st == STATUS_OK)
        st = linear_prepare_range(head->weights->head, head->weights->config.vocab, err);
    return st;
}

enum status stage_head_create(struct stage_head **out, const struct stage_weights *weights,
                              const struct vocabulary *vocabulary, int outputs_max,
                              struct error *err)
{
    *out = NULL;
    CHECK(outputs_max >= 1);
    struct stage_head *head = calloc(1, sizeof(*head));
    if (!head)
        return error_set(err, STATUS_NOMEM, "cannot allocate the head");
    head->weights = weights;
    head->outputs_max = outputs_max;
    enum status st =
        token_sets_init(&head->sets, vocabulary, weights->config.vocab, weights->stream, err);
    if (st == STATUS_OK)
        st = allocate(head, err);
    if (st != STATUS_OK) {
        stage_head_destroy(head);
        return st;
    }
    *out = head;
    return STATUS_OK;
}

void stage_head_destroy(struct stage_head *head)
{
    if (!head)
        return;
    stream_free(head->weights->stream, head->logits, head->logits_floats * sizeof(float));
    stream_free(head->weights->stream, head->gathered, head->gathered_bytes);
    token_sets_fini(&head->sets);
    free(head->wanted);
    free(head->order);
    free(head->requests);
    free(head);
}

size_t stage_head_bytes(const struct stage_head *head)
{
    return head->logits_floats * sizeof(float) + head->gathered_bytes +
           (size_t)head->sets.codes_n + (size_t)head->sets.vocab;
}

static bool is_code_draw(const Mgpt__Output *output)
{
    return output->kind == MGPT__OUTPUT_KIND__OUTPUT_DRAW &&
           output->set == MGPT__TOKEN_SET__SET_CODES;
}

/* Lists the plan's outputs; an unconditional row's belong to the row before. Returns their number.
 */
static int collect(struct stage_head *head, const Mgpt__StepPlan *plan)
{
    int n = 0, first_token = 0;
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        const Mgpt__Row *twin =
            row->role == MGPT__ROW_ROLE__ROW_CONDITIONAL ? plan->rows[r + 1] : NULL;
        bool is_twin = row->role == MGPT__ROW_ROLE__ROW_UNCONDITIONAL;
        for (size_t i = 0; !is_twin && i < row->n_outputs; i++) {
            CHECK(n < head->outputs_max);
            head->wanted[n++] = (struct wanted){
                .row = (uint32_t)r,
                .output = (uint32_t)i,
                .plan_row = row,
                .plan_output = row->outputs[i],
                .sampling = plan->sampling[row->sampling],
                .token = first_token + (int)row->outputs[i]->offset,
                .twin_token =
                    twin ? first_token + (int)(row->n_tokens + twin->outputs[i]->offset) : -1,
                .drawn = DRAWN_NOTHING};
        }
        first_token += (int)row->n_tokens;
    }
    int n_ordered = 0;
    for (int i = 0; i < n; i++)
        if (is_code_draw(head->wanted[i].plan_output))
            head->order[n_ordered++] = &head->wanted[i];
    for (int i = 0; i < n; i++)
        if (!is_code_draw(head->wanted[i].plan_output))
            head->order[n_ordered++] = &head->wanted[i];
    return n;
}

/* A batch: consecutive outputs of `order` that need the same ids. */
struct batch {
    struct wanted **items;
    int n, n_rows;
    int first_id, n_ids;
};

static size_t logits_needed(const struct stage_head *head, int n_rows, int n_ids)
{
    return (size_t)linear_padded_rows(n_rows, head->weights->stream) * (size_t)n_ids;
}

static struct batch next_batch(const struct stage_head *head, struct wanted **items, int n)
{
    struct batch batch = {.items = items};
    token_sets_range(&head->sets, items[0]->plan_output, &batch.first_id, &batch.n_ids);
    for (int i = 0; i < n; i++) {
        int first_id, n_ids, n_rows = items[i]->twin_token >= 0 ? 2 : 1;
        token_sets_range(&head->sets, items[i]->plan_output, &first_id, &n_ids);
        if (first_id != batch.first_id || n_ids != batch.n_ids ||
            batch.n_rows + n_rows > HEAD_ROWS_MAX ||
            logits_needed(head, batch.n_rows + n_rows, n_ids) > head->logits_floats)
            break;
        batch.n++;
        batch.n_rows += n_rows;
    }
    CHECK(batch.n > 0);
    return batch;
}

/* Logits of the batch: a conditional row is directly followed by its twin's. */
static enum status compute_logits(struct stage_head *head, const struct batch *batch, const void *x,
                                  int n_tokens, struct error *err)
{
    const struct stage_weights *weights = head->weights;
    const struct model_config *config = &weights->config;
    int n = 0;
    for (int i = 0; i < batch->n; i++) {
        head->ids[n++] = batch->items[i]->token;
        if (batch->items[i]->twin_token >= 0)
            head->ids[n++] = batch->items[i]->twin_token;
    }
    /* Rows of x are gathered as an embedding gathers rows of its table. */
    enum status st = embedding(head->gathered, head->ids, x, weights->compute, n, config->hidden,
                               n_tokens, weights->stream);
    if (st == STATUS_OK)
        st = rmsnorm(head->gathered, head->gathered, weights->final_norm, weights->compute, n,
                     config->hidden, config->rms_eps, weights->stream);
    if (st == STATUS_OK)
        st = linear_range_f32(head->logits, head->gathered, weights->head, batch->first_id,
                              batch->n_ids, n, weights->stream);
    return st == STATUS_OK
               ? st
               : error_set(err, st, "a kernel of the head failed (%s)", status_name(st));
}

static bool has_nan(const float *values, int n)
{
    bool found = false;
    for (int i = 0; i < n; i++)
        found |= isnan(values[i]);
    return found;
}

/* Copies a row of logits into the result, or takes note that it is bad. */
static enum status give_logits(struct stage_head *head, struct wanted *item, const float *logits,
                               struct step_result *result, struct error *err)
{
    int vocab = head->weights->config.vocab;
    float *copy = step_result_add_logits(result, item->row, item->output, (uint32_t)vocab);
    if (!copy)
        return error_set(err, STATUS_NOMEM, "cannot allocate logits of %d ids", vocab);
    stream_download(head->weights->stream, copy, logits, (size_t)vocab * sizeof(*copy));
    item->drawn = DRAWN_LOGITS;
    if (has_nan(copy, vocab)) {
        step_result_drop_logits(result);
        item->drawn = DRAWN_BAD;
    }
    return STATUS_OK;
}

/* Draws all at once; when a row spoils that, one by one, so that it spoils nothing but itself. */
static enum status draw(struct stage_head *head, struct wanted **items, int n, struct error *err)
{
    struct stream *stream = head->weights->stream;
    int32_t *drawn = head->ids;
    if (n == 0)
        return STATUS_OK;
    enum status st = sample(drawn, head->requests, n, stream, err);
    for (int i = 0; st == STATUS_OK && i < n; i++)
        items[i]->drawn = drawn[i];
    if (st != STATUS_INVALID)
        return st;
    for (int i = 0; i < n; i++) {
        st = sample(&items[i]->drawn, &head->requests[i], 1, stream, err);
        if (st == STATUS_INVALID)
            items[i]->drawn = DRAWN_BAD;
        else if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

/* All items of a batch with whole logits are LOGITS or text draws; both may occur, so draws are
 * compacted. */
static enum status answer_batch(struct stage_head *head, const struct batch *batch,
                                struct step_result *result, struct error *err)
{
    struct wanted *drawing[HEAD_ROWS_MAX];
    int n_drawing = 0;
    const float *logits = head->logits;
    for (int i = 0; i < batch->n; i++) {
        struct wanted *item = batch->items[i];
        const float *twin = item->twin_token >= 0 ? logits + batch->n_ids : NULL;
        if (item->plan_output->kind == MGPT__OUTPUT_KIND__OUTPUT_LOGITS) {
            enum status st = give_logits(head, item, logits, result, err);
            if (st != STATUS_OK)
                return st;
        } else {
            struct sample_request *request = &head->requests[n_drawing];
            token_sets_request(&head->sets, item->plan_output, item->sampling, request);
            request->logits = logits;
            request->unconditional = twin;
            drawing[n_drawing++] = item;
        }
        logits += (size_t)batch->n_ids * (twin ? 2 : 1);
    }
    return draw(head, drawing, n_drawing, err);
}

/* Puts draws and errors into the result in the order of the plan. */
static enum status write_answers(struct stage_head *head, int n, struct step_result *result,
                                 struct error *err)
{
    for (int i = 0; i < n; i++) {
        const struct wanted *item = &head->wanted[i];
        CHECK(item->drawn != DRAWN_NOTHING);
        if (item->drawn >= 0)
            step_result_add_drawn(result, item->row, item->output, (uint32_t)item->drawn);
        if (item->drawn != DRAWN_BAD)
            continue;
        struct step_error bad = {.row = item->row,
                                 .output = item->output,
                                 .sequence = item->plan_row->sequence,
                                 .position = item->plan_row->start + item->plan_output->offset,
                                 .unit = head->weights->last_unit,
                                 .status = STATUS_INVALID};
        if (step_result_add_error(result, &bad,
                                  "sequence %llu, position %u: the logits are not finite",
                                  (unsigned long long)bad.sequence, bad.position) != STATUS_OK)
            return error_set(err, STATUS_INVALID,
                             "the logits of more than %d outputs are not finite",
                             PLAN_ROW_ERRORS_MAX);
    }
    return STATUS_OK;
}

enum status stage_head_run(struct stage_head *head, const Mgpt__StepPlan *plan, const void *x,
                           int n_tokens, struct step_result *result, struct error *err)
{
    int n = collect(head, plan);
    for (int i = 0; i < n;) {
        struct batch batch = next_batch(head, head->order + i, n - i);
        enum status st = compute_logits(head, &batch, x, n_tokens, err);
        if (st == STATUS_OK)
            st = answer_batch(head, &batch, result, err);
        if (st != STATUS_OK)
            return st;
        i += batch.n;
    }
    return write_answers(head, n, result, err);
}
