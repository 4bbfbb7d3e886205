/*
 * http_status.c - /v1/models, /health, /health/live, /health/ready, /version: how the server is.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/http_internal.h"

enum MHD_Result http_models(struct http_request *request)
{
    const struct http_server *server = request->server;
    json_t *model =
        json_pack("{s:s, s:s, s:I, s:s, s:{s:[s], s:[s]}, s:i}", "id", server->options.model_name,
                  "object", "model", "created", (json_int_t)server->started_s, "owned_by", "mgptd",
                  "architecture", "input_modalities", "text", "output_modalities", "image",
                  "max_model_len", server->options.model->config.max_positions);
    const char *last = strrchr(request->path, '/');
    if (strcmp(last, "/models") == 0)
        return http_reply_json(request, 200,
                               json_pack("{s:s, s:[o]}", "object", "list", "data", model));
    if (strcmp(last + 1, server->options.model_name) == 0)
        return http_reply_json(request, 200, model);
    json_decref(model);
    struct http_refusal refusal = {404, "invalid_request_error", "model_not_found",
                                   .field = "model"};
    return http_reply_error(request, &refusal,
                            "this server has no such model; /v1/models lists what it has");
}

enum MHD_Result http_health_live(struct http_request *request)
{
    return http_reply_json(request, 200, json_pack("{s:s}", "status", "ok"));
}

/* What a server with stages on other machines waits for; NULL: nothing. */
static json_t *waits_for(const struct engine_stats *stats)
{
    if (stats->ready || stats->stopping || stats->n_remote == 0)
        return NULL;
    if (stats->n_remote_missing > 0)
        return json_sprintf("waiting for %d of %d workers of other machines at %s%s%s",
                            stats->n_remote_missing, stats->n_remote, stats->remote_endpoint,
                            stats->remote_notice[0] ? "; " : "", stats->remote_notice);
    return stats->remote_notice[0] ? json_string(stats->remote_notice) : NULL;
}

enum MHD_Result http_health_ready(struct http_request *request)
{
    struct engine_stats *stats = engine_stats(request->server->options.engine);
    if (!stats)
        return MHD_NO;
    bool ready = stats->ready && !stats->stopping;
    int n_ready = 0;
    for (int i = 0; i < stats->n_stages; i++)
        n_ready += stats->stages[i].ready;
    json_t *value = json_pack("{s:s, s:i, s:i, s:i, s:o*}", "status",
                              ready                         ? "ok"
                              : stats->stopping             ? "stopping"
                              : stats->n_remote_missing > 0 ? "waiting"
                                                            : "loading",
                              "stages_ready", n_ready, "stages", stats->n_stages, "workers_missing",
                              stats->n_remote_missing, "message", waits_for(stats));
    free(stats);
    return http_reply_json(request, ready ? 200 : 503, value);
}

/* Progress, not process: work that runs must bring tokens. */
enum MHD_Result http_health(struct http_request *request)
{
    int limit_s = request->server->options.stall_limit_s;
    struct engine_stats *stats = engine_stats(request->server->options.engine);
    if (!stats)
        return MHD_NO;
    int n_open = stats->n_running + stats->n_waiting;
    bool stalled = n_open > 0 && stats->token_age_ms > (int64_t)limit_s * 1000;
    json_t *value = json_pack("{s:s, s:i, s:i, s:f, s:i, s:b, s:o*}", "status",
                              stalled      ? "stalled"
                              : n_open > 0 ? "ok"
                                           : "idle",
                              "running", stats->n_running, "waiting", stats->n_waiting,
                              "last_token_age_seconds", (double)stats->token_age_ms * 1e-3,
                              "stall_threshold_seconds", limit_s, "ready", stats->ready, "message",
                              waits_for(stats));
    free(stats);
    return http_reply_json(request, stalled ? 503 : 200, value);
}

enum MHD_Result http_version(struct http_request *request)
{
    return http_reply_json(request, 200,
                           json_pack("{s:s, s:s}", "name", "mgptd", "version", MGPT_VERSION));
}
