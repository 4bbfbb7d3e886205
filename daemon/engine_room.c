/*
 * engine_room.c - the number of KV blocks where nobody names one: chosen once, when every worker
 * beside the stages is loaded and every stage has said what it needs and what its memory has.
 * Requests that come before wait.
 */
#include <stdlib.h>

#include "base/log.h"
#include "daemon/engine_state.h"
#include "daemon/kv_size.h"

/* What is left for the stages is known only when the others have taken theirs. */
static bool sides_stand(const struct engine *engine)
{
    return (!engine->codec || side_ready(engine->codec)) &&
           (!engine->draws || side_ready(engine->draws));
}

/* Whether all answered. Nobody is asked before everyone has opened its device. */
static bool ask_stages(struct engine *engine, int64_t now_ms)
{
    for (int p = 0; p < engine->n_pipelines; p++)
        if (!stages_have_greeted(pipeline_stages(engine->pipelines[p])))
            return false;
    bool have_all = true;
    for (int p = 0; p < engine->n_pipelines; p++)
        have_all &= stages_ask_rooms(pipeline_stages(engine->pipelines[p]), now_ms);
    return have_all;
}

static enum status choose(const struct engine *engine, int *n_blocks, struct error *err)
{
    int n = 0;
    int n_max = engine->n_pipelines * engine->options.n_stages;
    struct kv_size_stage *rooms = calloc((size_t)n_max, sizeof(*rooms));
    if (!rooms)
        return error_set(err, STATUS_NOMEM, "cannot allocate the rooms of %d stages", n_max);
    for (int p = 0; p < engine->n_pipelines; p++)
        for (int k = 0; k < engine->options.n_stages; k++)
            rooms[n++] = pipeline_stages(engine->pipelines[p])->list[k].room;
    struct kv_size_question question = {.config = &engine->options.model->config,
                                        .target_size = engine->options.model->settings.target_size,
                                        .n_stages = engine->options.n_stages,
                                        .stages = rooms,
                                        .n_all = n};
    enum status st = kv_size_choose(n_blocks, &question, err);
    free(rooms);
    return st;
}

bool engine_choose_blocks(struct engine *engine, int64_t now_ms)
{
    struct error err;
    int n_blocks;
    if (!sides_stand(engine) || !ask_stages(engine, now_ms))
        return false;
    enum status st = choose(engine, &n_blocks, &err);
    for (int p = 0; p < engine->n_pipelines && st == STATUS_OK; p++)
        st = pipeline_choose_blocks(engine->pipelines[p], n_blocks, &err);
    if (st != STATUS_OK && engine->remote) {
        engine_dismiss_all(engine, &err, now_ms);
        return false;
    }
    if (st != STATUS_OK) {
        stages_give_up(pipeline_stages(engine->pipelines[0]), &err);
        return false;
    }
    log_info("engine", "kv blocks chosen blocks=%d stages=%d", n_blocks,
             engine->n_pipelines * engine->options.n_stages);
    return true;
}
