/*
 * pipeline.h - one scheduler and its stages: plans go out to all stages, results come back, events
 * come out.
 *
 * In:      scheduler requests, messages of the stage workers, the time.   Out: events of the
 * scheduler; hooks below. Owns:    the scheduler, the stages, the plans in flight. Loss:    when
 * the stages form anew, plans in flight are forgotten and the scheduler puts every request back
 * with the tokens it has; since sampling is a function of seed and place, the request goes on as if
 * nothing had been. Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_PIPELINE_H
#define MGPT_DAEMON_PIPELINE_H

#include "daemon/stages.h"
#include "scheduler/scheduler.h"

struct pipeline_hooks {
    void *context;
    /* A plan with rows of this request was sent. Called once a plan and request. */
    void (*on_pass)(void *context, uint64_t request);
    /* The logits of a probe's position; [vocab] borrowed for the call. */
    void (*on_logits)(void *context, uint64_t request, int ordinal, const float *logits, int vocab);
    /* The stages form anew; the scheduler is reset right after. */
    void (*on_lost)(void *context, int pipeline, const struct error *reason);
};

struct pipeline_options {
    struct stages_options stages;
    struct scheduler_options scheduler;
    struct pipeline_hooks hooks;
    int vocab, max_positions;
};

struct pipeline;

enum status pipeline_create(struct pipeline **out, const struct pipeline_options *options,
                            struct error *err);
void pipeline_destroy(struct pipeline *pipeline); /* NULL is fine */

/* Does what is due: stages, deadlines of plans, new plans. Call after everything else and at least
 * each tick. */
void pipeline_run(struct pipeline *pipeline, int64_t now_ns);

/* A message, if it is from one of the stages' workers; false when it is not. */
bool pipeline_on_message(struct pipeline *pipeline, const struct frame_peer *peer,
                         const struct message *message, int64_t now_ns);

/* Where options.stages.kv_blocks was 0: before any request. On error the pipeline is as it was. */
enum status pipeline_choose_blocks(struct pipeline *pipeline, int kv_blocks, struct error *err);

struct scheduler *pipeline_scheduler(struct pipeline *pipeline);
struct stages *pipeline_stages(struct pipeline *pipeline);

int pipeline_n_in_flight(const struct pipeline *pipeline);

#endif
