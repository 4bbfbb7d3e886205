/*
 * pipeline.c - keeps the plans in flight, each with its message until the last stage answered it.
 */
#include "daemon/pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "daemon/limits.h"
#include "daemon/plan_message.h"
#include "proto/plan.h"

struct step {
    const struct plan *plan; /* NULL: free */
    struct plan_message message;
    int64_t sent_ms;
    struct plan_row_failure *earlier; /* [n_earlier] what stages before the last said of rows that
                                         stopped being finite there; texts owned */
    int n_earlier;
};

struct pipeline {
    struct pipeline_options options;
    struct stages stages;
    struct scheduler *scheduler;
    uint64_t epoch; /* the scheduler's */
    struct step steps[PIPELINE_IN_FLIGHT_MAX];
    int n_in_flight;
    int32_t *tokens; /* of one result; grows */
    struct plan_row_failure *failures;
    size_t tokens_capacity, failures_capacity;
};

enum status pipeline_create(struct pipeline **out, const struct pipeline_options *options,
                            struct error *err)
{
    *out = NULL;
    struct pipeline *pipeline = calloc(1, sizeof(*pipeline));
    if (!pipeline)
        return error_set(err, STATUS_NOMEM, "cannot allocate a pipeline");
    pipeline->options = *options;
    pipeline->epoch = 1;
    enum status st = stages_init(&pipeline->stages, &options->stages, err);
    if (st == STATUS_OK)
        st = scheduler_create(&pipeline->scheduler, &options->scheduler, err);
    if (st != STATUS_OK) {
        pipeline_destroy(pipeline);
        return st;
    }
    *out = pipeline;
    return STATUS_OK;
}

static void forget_earlier(struct step *step)
{
    for (int i = 0; i < step->n_earlier; i++)
        free((char *)(uintptr_t)step->earlier[i].text);
    free(step->earlier);
    step->earlier = NULL;
    step->n_earlier = 0;
}

void pipeline_destroy(struct pipeline *pipeline)
{
    if (!pipeline)
        return;
    stages_fini(&pipeline->stages);
    scheduler_destroy(pipeline->scheduler);
    for (int i = 0; i < PIPELINE_IN_FLIGHT_MAX; i++) {
        plan_message_fini(&pipeline->steps[i].message);
        forget_earlier(&pipeline->steps[i]);
    }
    free(pipeline->tokens);
    free(pipeline->failures);
    free(pipeline);
}

enum status pipeline_choose_blocks(struct pipeline *pipeline, int kv_blocks, struct error *err)
{
    struct scheduler *scheduler;
    struct scheduler_options options = pipeline->options.scheduler;
    CHECK(pipeline->n_in_flight == 0);
    options.kv_blocks = kv_blocks;
    options.epoch = pipeline->epoch;
    enum status st = scheduler_create(&scheduler, &options, err);
    if (st != STATUS_OK)
        return st;
    scheduler_destroy(pipeline->scheduler);
    pipeline->scheduler = scheduler;
    stages_choose_blocks(&pipeline->stages, kv_blocks);
    return STATUS_OK;
}

struct scheduler *pipeline_scheduler(struct pipeline *pipeline)
{
    return pipeline->scheduler;
}

struct stages *pipeline_stages(struct pipeline *pipeline)
{
    return &pipeline->stages;
}

int pipeline_n_in_flight(const struct pipeline *pipeline)
{
    return pipeline->n_in_flight;
}

static struct step *find_step(struct pipeline *pipeline, uint64_t number)
{
    for (int i = 0; i < PIPELINE_IN_FLIGHT_MAX; i++)
        if (pipeline->steps[i].plan && pipeline->steps[i].plan->number == number)
            return &pipeline->steps[i];
    return NULL;
}

static struct step *free_step(struct pipeline *pipeline)
{
    for (int i = 0; i < PIPELINE_IN_FLIGHT_MAX; i++)
        if (!pipeline->steps[i].plan)
            return &pipeline->steps[i];
    return NULL;
}

static void end_step(struct pipeline *pipeline, struct step *step)
{
    step->plan = NULL;
    forget_earlier(step);
    pipeline->n_in_flight--;
}

/* ---- plans out ---- */

static void tell_passes(struct pipeline *pipeline, const struct plan *plan)
{
    const struct pipeline_hooks *hooks = &pipeline->options.hooks;
    uint64_t last = 0;
    /* The rows of a request stand side by side in a plan. */
    for (int i = 0; i < plan->n_rows; i++) {
        if (i == 0 || plan->rows[i].request != last)
            hooks->on_pass(hooks->context, plan->rows[i].request);
        last = plan->rows[i].request;
    }
}

static enum status send_to_all(struct pipeline *pipeline, const struct step *step, int64_t now_ms)
{
    struct error err;
    for (int k = 0; k < pipeline->stages.n; k++) {
        if (worker_send(&pipeline->stages.list[k].worker, MESSAGE_STEP_PLAN,
                        &step->message.body.base, &err) == STATUS_OK)
            continue;
        stages_lose(&pipeline->stages, k, now_ms, err.text);
        return STATUS_LOST;
    }
    return STATUS_OK;
}

static enum status check_plan(const struct pipeline *pipeline, const struct step *step,
                              struct error *err)
{
    struct plan_limits limits = {.rows_max = (uint32_t)pipeline->options.stages.rows_max,
                                 .outputs_max = (uint32_t)pipeline->options.stages.outputs_max,
                                 .vocab = (uint32_t)pipeline->options.vocab,
                                 .max_positions = (uint32_t)pipeline->options.max_positions};
    return plan_check(&step->message.body, &limits, err);
}

/* A plan that cannot be sent uses its number up at the scheduler but not at the stages: a new epoch
 * evens that out. */
static void give_up_plan(struct pipeline *pipeline, const struct plan *plan, int64_t now_ns,
                         const struct error *err)
{
    log_error("engine", "plan not sent number=%llu reason=\"%s\"", (unsigned long long)plan->number,
              err->text);
    scheduler_fail_plan(pipeline->scheduler, now_ns, plan->number, err->text, NULL);
    stages_begin_epoch(&pipeline->stages, err->text);
}

static void send_plans(struct pipeline *pipeline, int64_t now_ns)
{
    const struct plan *plan;
    struct error err;
    while (pipeline->stages.ready && pipeline->n_in_flight < PIPELINE_IN_FLIGHT_MAX &&
           (plan = scheduler_next_plan(pipeline->scheduler, now_ns))) {
        struct step *step = free_step(pipeline);
        enum status st = plan_message_build(&step->message, plan, &err);
        if (st == STATUS_OK)
            st = check_plan(pipeline, step, &err);
        if (st != STATUS_OK) {
            give_up_plan(pipeline, plan, now_ns, &err);
            return;
        }
        step->plan = plan;
        step->sent_ms = now_ns / 1000000;
        pipeline->n_in_flight++;
        log_debug("engine", "plan sent pipeline=%d number=%llu rows=%d tokens=%d positions=%lld",
                  pipeline->options.stages.pipeline, (unsigned long long)plan->number, plan->n_rows,
                  (int)plan->n_tokens, (long long)plan->n_context);
        if (send_to_all(pipeline, step, now_ns / 1000000) != STATUS_OK)
            return;
        tell_passes(pipeline, plan);
    }
}

/* ---- results in ---- */

static bool reserve(void **memory, size_t *capacity, size_t n, size_t item_bytes)
{
    if (n <= *capacity)
        return true;
    void *more = realloc(*memory, n * item_bytes);
    if (!more)
        return false;
    *memory = more;
    *capacity = n;
    return true;
}

static void tell_logits(struct pipeline *pipeline, const struct plan *plan,
                        const Mgpt__StepResult *result)
{
    const struct pipeline_hooks *hooks = &pipeline->options.hooks;
    for (size_t i = 0; i < result->n_logits; i++) {
        const Mgpt__LogitsRow *logits = result->logits[i];
        const struct plan_row *row = &plan->rows[logits->row];
        hooks->on_logits(hooks->context, row->request, row->outputs[logits->output].ordinal,
                         (const float *)(const void *)logits->logits.data, pipeline->options.vocab);
    }
}

static enum status complete(struct pipeline *pipeline, struct step *step,
                            const Mgpt__StepResult *result, int64_t now_ns, struct error *err)
{
    const struct plan *plan = step->plan;
    enum status st = plan_check_result(result, &step->message.body, true,
                                       (uint32_t)pipeline->options.vocab, err);
    if (st != STATUS_OK)
        return st;
    if (!reserve((void **)&pipeline->tokens, &pipeline->tokens_capacity, (size_t)plan->n_draws + 1,
                 sizeof(*pipeline->tokens)) ||
        !reserve((void **)&pipeline->failures, &pipeline->failures_capacity,
                 (size_t)(plan->n_rows + step->n_earlier) + 1, sizeof(*pipeline->failures)))
        return error_set(err, STATUS_NOMEM, "cannot allocate the tokens of a plan");
    tell_logits(pipeline, plan, result);
    struct plan_result answer = {.number = plan->number,
                                 .n_tokens = plan->n_draws,
                                 .tokens = pipeline->tokens,
                                 .failures = pipeline->failures};
    /* Of several texts about a row the first counts: the stage where it began knows the layer. */
    if (step->n_earlier > 0)
        memcpy(pipeline->failures, step->earlier,
               (size_t)step->n_earlier * sizeof(*pipeline->failures));
    plan_message_read_result(result, plan, pipeline->tokens, pipeline->failures + step->n_earlier,
                             &answer.n_failures);
    answer.n_failures += step->n_earlier;
    st = scheduler_complete(pipeline->scheduler, now_ns, &answer, err);
    if (st != STATUS_OK)
        log_error("engine", "result refused number=%llu reason=\"%s\"",
                  (unsigned long long)answer.number, err->text);
    return STATUS_OK; /* the scheduler has failed the plan's requests itself */
}

/* The first stage that did not answer a plan is the one that hangs: those before it sent their part
 * on, those behind wait. */
static void lose_late_stage(struct pipeline *pipeline, uint64_t number, int64_t now_ms,
                            const char *why)
{
    int late = 0;
    while (late < pipeline->stages.n - 1 && pipeline->stages.list[late].answered_number >= number)
        late++;
    stages_lose(&pipeline->stages, late, now_ms, why);
}

static void on_last_result(struct pipeline *pipeline, const Mgpt__StepResult *result,
                           int64_t now_ns)
{
    struct step *step = find_step(pipeline, result->number);
    struct error err;
    if (!step) {
        stages_begin_epoch(&pipeline->stages,
                           "the last stage answered a plan that is not in flight");
        return;
    }
    enum status st;
    /* Requests go on when the stages stand again. A link that is lost is formed anew; its stages
     * have not failed, and whoever has says so by its end. */
    if (result->status == STATUS_TIMEOUT) {
        lose_late_stage(pipeline, result->number, now_ns / 1000000, result->text);
        return;
    }
    if (result->status == STATUS_LOST) {
        stages_begin_epoch(&pipeline->stages, result->text);
        return;
    }
    if (result->status != STATUS_OK)
        st = error_set(&err, STATUS_INTERNAL, "step failed: %s", result->text);
    else
        st = complete(pipeline, step, result, now_ns, &err);
    if (st != STATUS_OK) {
        log_warn("engine", "plan failed pipeline=%d number=%llu reason=\"%s\"",
                 pipeline->options.stages.pipeline, (unsigned long long)result->number, err.text);
        scheduler_fail_plan(pipeline->scheduler, now_ns, result->number, err.text, NULL);
    }
    end_step(pipeline, step);
}

/* Most often these come before the last stage's result, for which they are kept; the log has them
 * in any case. */
static void note_row_errors(struct pipeline *pipeline, int k, const Mgpt__StepResult *result)
{
    struct step *step = find_step(pipeline, result->number);
    bool is_last = k == pipeline->stages.n - 1;
    for (size_t i = 0; i < result->n_errors; i++) {
        const Mgpt__RowError *error = result->errors[i];
        log_warn("engine", "row failed pipeline=%d stage=%d number=%llu reason=\"%s\"",
                 pipeline->options.stages.pipeline, k, (unsigned long long)result->number,
                 error->text);
        if (is_last || !step || error->row >= (uint32_t)step->plan->n_rows)
            continue;
        struct plan_row_failure *more =
            realloc(step->earlier, (size_t)(step->n_earlier + 1) * sizeof(*more));
        char *text = more ? strdup(error->text) : NULL;
        if (more)
            step->earlier = more;
        if (text)
            more[step->n_earlier++] =
                (struct plan_row_failure){.row = (int)error->row, .text = text};
    }
}

static void on_result(struct pipeline *pipeline, int k, const Mgpt__StepResult *result,
                      int64_t now_ns)
{
    struct stage *stage = &pipeline->stages.list[k];
    stage->worker.heard_ms = now_ns / 1000000;
    if (result->epoch != pipeline->stages.epoch || result->epoch != pipeline->epoch)
        return; /* of an epoch that is over */
    stage->answered_number = result->number;
    stage->busy_ns += result->busy_ns;
    stage->wait_ns += result->wait_ns;
    stage->link_bytes += result->n_link_bytes;
    stage->kv_blocks_used = (int)result->kv_blocks_used;
    log_debug("engine", "plan done pipeline=%d number=%llu stage=%d busy_us=%llu",
              pipeline->options.stages.pipeline, (unsigned long long)result->number, k,
              (unsigned long long)(result->busy_ns / 1000));
    scheduler_measure(pipeline->scheduler, now_ns, result->number, k, (int64_t)result->busy_ns);
    note_row_errors(pipeline, k, result);
    if (k == pipeline->stages.n - 1)
        on_last_result(pipeline, result, now_ns);
}

bool pipeline_on_message(struct pipeline *pipeline, const struct frame_peer *peer,
                         const struct message *message, int64_t now_ns)
{
    for (int k = 0; k < pipeline->stages.n; k++) {
        struct worker *worker = &pipeline->stages.list[k].worker;
        if (message->type == MESSAGE_HELLO &&
            worker_greet(worker, peer, message->hello, now_ns / 1000000))
            return true;
        if (!worker_is_peer(worker, peer))
            continue;
        if (message->type == MESSAGE_STEP_RESULT)
            on_result(pipeline, k, message->step_result, now_ns);
        else
            stages_on_message(&pipeline->stages, k, message, now_ns / 1000000);
        return true;
    }
    return false;
}

/* ---- time ---- */

static void check_deadline(struct pipeline *pipeline, int64_t now_ms)
{
    const struct step *oldest = NULL;
    for (int i = 0; i < PIPELINE_IN_FLIGHT_MAX; i++) {
        const struct step *step = &pipeline->steps[i];
        if (step->plan && (!oldest || step->plan->number < oldest->plan->number))
            oldest = step;
    }
    if (oldest && now_ms - oldest->sent_ms > pipeline->options.stages.step_wait_ms)
        lose_late_stage(pipeline, oldest->plan->number, now_ms, "a step passed its limit of time");
}

static void follow_epoch(struct pipeline *pipeline, int64_t now_ns)
{
    const struct pipeline_hooks *hooks = &pipeline->options.hooks;
    if (pipeline->epoch == pipeline->stages.epoch)
        return;
    for (int i = 0; i < PIPELINE_IN_FLIGHT_MAX; i++)
        if (pipeline->steps[i].plan)
            end_step(pipeline, &pipeline->steps[i]);
    CHECK(pipeline->n_in_flight == 0);
    hooks->on_lost(hooks->context, pipeline->options.stages.pipeline, &pipeline->stages.reason);
    pipeline->epoch = pipeline->stages.epoch;
    scheduler_reset(pipeline->scheduler, now_ns, pipeline->epoch);
}

void pipeline_run(struct pipeline *pipeline, int64_t now_ns)
{
    check_deadline(pipeline, now_ns / 1000000);
    stages_advance(&pipeline->stages, now_ns / 1000000);
    follow_epoch(pipeline, now_ns);
    send_plans(pipeline, now_ns);
    follow_epoch(pipeline, now_ns);
}
