/*
 * plan_fuzz.c - any bytes as a StepPlan: what plan_check() lets through can be used without another
 * look, and the books of the KV cache take it in.
 */
#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"
#include "proto/message.h"
#include "proto/plan.h"
#include "worker/kv_cache.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static const struct plan_limits limits = {
    .rows_max = 512, .outputs_max = 64, .vocab = 10240, .max_positions = 4096};

/* Reads everything a stage reads. */
static void use_rows(const Mgpt__StepPlan *plan)
{
    int n_outputs = 0, n_tokens = 0;
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        CHECK(row->start + row->n_tokens <= limits.max_positions);
        for (size_t i = 0; i < row->n_tokens; i++)
            CHECK(row->tokens[i] < limits.vocab);
        for (size_t i = 0; i < row->n_outputs; i++) {
            CHECK(row->outputs[i]->offset < row->n_tokens);
            if (row->role == MGPT__ROW_ROLE__ROW_CONDITIONAL)
                CHECK(plan->rows[r + 1]->outputs[i]->offset < plan->rows[r + 1]->n_tokens);
        }
        n_tokens += (int)row->n_tokens;
        if (row->role == MGPT__ROW_ROLE__ROW_UNCONDITIONAL)
            continue;
        CHECK(row->n_outputs == 0 || row->sampling < plan->n_sampling);
        n_outputs += (int)row->n_outputs;
    }
    CHECK(n_tokens == plan_n_tokens(plan));
    CHECK(n_tokens <= (int)limits.rows_max);
    CHECK(n_outputs == plan_n_outputs(plan));
    CHECK(n_outputs <= (int)limits.outputs_max);
}

static void keep_books(const Mgpt__StepPlan *plan)
{
    struct kv_cache_options options = {
        .n_layers = 0, .n_blocks = 16, .sequences_max = 4, .shape = {1, 1, 2, DTYPE_F32}};
    struct kv_cache *kv;
    struct error err;
    CHECK(kv_cache_create(&kv, &options, NULL, &err) == STATUS_OK);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < plan->n_release; i++)
            kv_cache_release(kv, plan->release[i]);
        for (size_t i = 0; i < plan->n_rows; i++)
            (void)kv_cache_prepare(kv, plan->rows[i]->sequence, (int)plan->rows[i]->start,
                                   (int)plan->rows[i]->n_tokens, &err);
        for (size_t i = 0; i < plan->n_forks; i++)
            (void)kv_cache_fork(kv, plan->forks[i]->from, plan->forks[i]->to,
                                (int)plan->forks[i]->n_positions, &err);
    }
    kv_cache_release_all(kv);
    CHECK(kv_cache_n_used(kv) == 0);
    kv_cache_destroy(kv);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct message message;
    struct error err;
    if (message_decode(&message, MESSAGE_STEP_PLAN, bytes, n_bytes, &err) == STATUS_OK &&
        plan_check(message.step_plan, &limits, &err) == STATUS_OK) {
        use_rows(message.step_plan);
        keep_books(message.step_plan);
    }
    message_clear(&message);
    return 0;
}
