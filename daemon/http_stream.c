/*
 * http_stream.c - the same pictures as server-sent events: image_generation.completed for each,
 * error, and on request progress.
 *
 * libmicrohttpd asks for more bytes on the connection's thread; that call may wait for the next
 * event. A comment is sent when nothing else was for HTTP_KEEPALIVE_MS, so that proxies and clients
 * see that the work goes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/http_internal.h"
#include "daemon/http_pictures.h"
#include "daemon/image_job.h"

enum { BLOCK_BYTES = 1 << 16 };

struct stream {
    struct http_request *request;
    struct image_job job;
    char *text; /* what is to be sent now; NULL: nothing */
    size_t n_bytes, sent_bytes;
    bool ended; /* after `text` */
};

static void end_stream(void *context)
{
    struct stream *stream = context;
    image_job_fini(&stream->job);
    free(stream->text);
    free(stream);
}

/* event: NAME\ndata: JSON\n\n; takes the value. */
static bool say(struct stream *stream, const char *name, json_t *take_value)
{
    char *json = take_value ? json_dumps(take_value, JSON_COMPACT) : NULL;
    json_decref(take_value);
    if (!json)
        return false;
    size_t bytes = strlen(json) + strlen(name) + 32;
    char *text = malloc(bytes);
    if (text)
        stream->n_bytes = (size_t)snprintf(text, bytes, "event: %s\ndata: %s\n\n", name, json);
    free(json);
    stream->text = text;
    stream->sent_bytes = 0;
    return text != NULL;
}

static bool say_plain(struct stream *stream, const char *text)
{
    stream->text = strdup(text);
    stream->n_bytes = strlen(text);
    stream->sent_bytes = 0;
    return stream->text != NULL;
}

static bool say_error(struct stream *stream, const struct error *err)
{
    struct http_refusal refusal = http_refusal_of(stream->request->server, err->code);
    stream->ended = true;
    return say(stream, "error", http_error_json(&refusal, err->text));
}

static bool say_completed(struct stream *stream, const struct engine_event *event)
{
    json_t *entry = NULL;
    struct error err;
    if (http_pictures_entry(&entry, stream->request, &stream->job, event, &err) != STATUS_OK)
        return say_error(stream, &err);
    json_t *value = http_pictures_common(&stream->job);
    json_object_update_new(value, entry);
    json_object_set_new(value, "type", json_string("image_generation.completed"));
    json_object_set_new(value, "created_at", json_integer((json_int_t)clock_unix_s()));
    json_object_set_new(value, "usage", http_pictures_usage(&stream->job, 1));
    stream->ended = stream->job.n_ended == stream->job.n_submitted;
    return say(stream, "image_generation.completed", value);
}

static bool say_progress(struct stream *stream, const struct engine_event *event)
{
    return say(stream, "progress",
               json_pack("{s:s, s:i, s:s, s:i, s:i, s:f}", "type", "progress", "picture_index",
                         (int)event->tag, "state",
                         event->kind == ENGINE_EVENT_STARTED ? "started" : "running", "tokens_done",
                         event->tokens_done, "tokens_total", event->tokens_total, "eta_s",
                         event->eta_s));
}

/* False when the stream cannot go on. */
static bool next_text(struct stream *stream)
{
    while (!stream->text) {
        struct engine_event *event = NULL;
        enum image_job_outcome outcome = image_job_wait(
            &stream->job, http_client_fd(stream->request), HTTP_KEEPALIVE_MS, &event);
        bool good = true;
        if (outcome == IMAGE_JOB_GONE)
            return false;
        if (outcome == IMAGE_JOB_NOTHING)
            return say_plain(stream, ": keepalive\n\n");
        if (event->kind == ENGINE_EVENT_FAILED)
            good = say_error(stream, &event->error);
        else if (event->kind == ENGINE_EVENT_FINISHED)
            good = say_completed(stream, event);
        else if (stream->job.request.progress)
            good = say_progress(stream, event);
        mail_destroy(&event->mail);
        if (!good)
            return false;
    }
    return true;
}

static ssize_t give(void *context, uint64_t position, char *buffer, size_t n_max)
{
    struct stream *stream = context;
    (void)position;
    if (!stream->text && stream->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (!next_text(stream))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = stream->n_bytes - stream->sent_bytes;
    if (n > n_max)
        n = n_max;
    memcpy(buffer, stream->text + stream->sent_bytes, n);
    stream->sent_bytes += n;
    if (stream->sent_bytes == stream->n_bytes) {
        free(stream->text);
        stream->text = NULL;
    }
    return (ssize_t)n;
}

enum MHD_Result http_stream_images(struct http_request *request, struct image_job *take_job)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    struct MHD_Response *response = NULL;
    if (stream)
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, give, stream,
                                                     end_stream);
    if (!response) {
        image_job_fini(take_job);
        free(stream);
        return MHD_NO;
    }
    stream->request = request;
    stream->job = *take_job;
    http_pause_timeout(request);
    MHD_add_response_header(response, "Content-Type", "text/event-stream");
    http_add_headers(request, response);
    enum MHD_Result result = MHD_queue_response(request->connection, 200, response);
    MHD_destroy_response(response);
    return result;
}
