/*
 * http_reply.c - bodies, headers, errors.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http_internal.h"

void http_add_headers(const struct http_request *request, struct MHD_Response *response)
{
    MHD_add_response_header(response, "X-Request-Id", request->id);
    MHD_add_response_header(response, "Server", "mgptd/" MGPT_VERSION);
    MHD_add_response_header(response, "Cache-Control", "no-store");
}

static enum MHD_Result queue(struct http_request *request, unsigned int code,
                             struct MHD_Response *response)
{
    http_add_headers(request, response);
    enum MHD_Result result = MHD_queue_response(request->connection, code, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result http_reply_bytes(struct http_request *request, unsigned int code,
                                 const char *content_type, void *take_bytes, size_t n_bytes)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(n_bytes, take_bytes, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(take_bytes);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", content_type);
    return queue(request, code, response);
}

/* The bytes of a JSON value, taken; NULL: no memory. */
static char *dump(json_t *take_value)
{
    char *text = take_value ? json_dumps(take_value, JSON_COMPACT) : NULL;
    json_decref(take_value);
    return text;
}

enum MHD_Result http_reply_json(struct http_request *request, unsigned int code, json_t *take_value)
{
    char *text = dump(take_value);
    return text ? http_reply_bytes(request, code, "application/json", text, strlen(text)) : MHD_NO;
}

/* A text cut within a character of several bytes would be no JSON: those bytes become '?'. */
static json_t *text_json(const char *text)
{
    json_t *value = json_string(text);
    if (value)
        return value;
    char plain[ERROR_TEXT_BYTES];
    snprintf(plain, sizeof(plain), "%s", text);
    for (unsigned char *c = (unsigned char *)plain; *c; c++)
        if (*c >= 0x80)
            *c = '?';
    return json_string(plain);
}

json_t *http_error_json(const struct http_refusal *refusal, const char *text)
{
    bool has_field = refusal->field && refusal->field[0];
    return json_pack("{s:{s:o, s:s, s:o, s:s}}", "error", "message", text_json(text), "type",
                     refusal->type, "param", has_field ? text_json(refusal->field) : json_null(),
                     "code", refusal->reason);
}

enum MHD_Result http_reply_error(struct http_request *request, const struct http_refusal *refusal,
                                 const char *text)
{
    char *body = dump(http_error_json(refusal, text));
    if (!body)
        return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", "application/json");
    MHD_add_response_header(response, "x-should-retry", refusal->retry ? "true" : "false");
    if (refusal->allow)
        MHD_add_response_header(response, "Allow", refusal->allow);
    if (refusal->retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof(seconds), "%d", refusal->retry_after_s);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    return queue(request, refusal->code, response);
}

/* When the queue should have room again: the time of all that is open over the places it takes. */
static int retry_after_s(struct http_server *server)
{
    struct engine_stats *stats = engine_stats(server->options.engine);
    double seconds = 1;
    if (stats && stats->backlog_s > 0 && stats->n_running + stats->n_waiting > 0)
        seconds = stats->backlog_s / (stats->n_running + stats->n_waiting) + 1;
    free(stats);
    return seconds > HTTP_RETRY_AFTER_MAX_S ? HTTP_RETRY_AFTER_MAX_S : (int)seconds;
}

struct http_refusal http_refusal_of(struct http_server *server, enum status status)
{
    switch (status) {
    case STATUS_INVALID:
    case STATUS_UNSUPPORTED:
        return (struct http_refusal){400, "invalid_request_error", "invalid_value", .field = NULL};
    case STATUS_NOT_FOUND:
        return (struct http_refusal){404, "invalid_request_error", "not_found", .field = NULL};
    case STATUS_FULL:
        return (struct http_refusal){429, "rate_limit_error", "queue_full",
                                     .retry_after_s = retry_after_s(server), .retry = true};
    case STATUS_CANCELED:
        return (struct http_refusal){503, "server_error", "stopping", .retry_after_s = 5,
                                     .retry = true};
    case STATUS_LOST:
        return (struct http_refusal){503, "server_error", "worker_lost", .retry_after_s = 5,
                                     .retry = true};
    case STATUS_NOMEM:
        return (struct http_refusal){503, "server_error", "out_of_memory", .retry_after_s = 5,
                                     .retry = true};
    case STATUS_TIMEOUT:
        return (struct http_refusal){504, "server_error", "timeout", .retry = false};
    default:
        return (struct http_refusal){500, "server_error", "internal_error", .retry = false};
    }
}
