/*
 * http_images.c - POST /v1/images/generations, and the files it names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/http_internal.h"
#include "daemon/http_pictures.h"
#include "daemon/image_job.h"

enum { LOOK_MS = 1000 };

static enum MHD_Result refuse(struct http_request *request, enum status status,
                              const struct image_refusal *why, const struct error *err)
{
    struct http_refusal refusal = http_refusal_of(request->server, status);
    if (refusal.code == 400 || refusal.code == 404) {
        refusal.field = why->field;
        refusal.reason = why->code;
    }
    return http_reply_error(request, &refusal, err->text);
}

/* Each finished picture becomes its entry in `data`. *gone: the client left; nobody is there to
 * answer. */
static enum status wait_for_all(struct http_request *request, struct image_job *job,
                                json_t **entries, bool *gone, struct error *err)
{
    while (job->n_ended < job->n_submitted) {
        struct engine_event *event = NULL;
        enum image_job_outcome outcome =
            image_job_wait(job, http_client_fd(request), LOOK_MS, &event);
        enum status st = STATUS_OK;
        *gone = outcome == IMAGE_JOB_GONE;
        if (*gone)
            return error_set(err, STATUS_LOST, "the client left");
        if (outcome == IMAGE_JOB_NOTHING)
            continue;
        if (event->kind == ENGINE_EVENT_FAILED)
            st = error_set(err, event->error.code, "%s", event->error.text);
        else if (event->kind == ENGINE_EVENT_FINISHED)
            st = http_pictures_entry(&entries[event->tag], request, job, event, err);
        mail_destroy(&event->mail);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

static enum MHD_Result reply(struct http_request *request, const struct image_job *job,
                             json_t *const *entries)
{
    json_t *data = json_array();
    for (int i = 0; i < job->n_submitted; i++)
        json_array_append(data, entries[i]);
    json_t *root = http_pictures_common(job);
    json_object_set_new(root, "data", data);
    json_object_set_new(root, "usage", http_pictures_usage(job, job->n_submitted));
    return http_reply_json(request, 200, root);
}

static enum MHD_Result reply_whole(struct http_request *request, struct image_job *job)
{
    json_t *entries[IMAGE_REQUEST_N_MAX] = {NULL};
    struct error err;
    bool gone = false;
    http_pause_timeout(request);
    enum status st = wait_for_all(request, job, entries, &gone, &err);
    http_resume_timeout(request);
    enum MHD_Result result = MHD_NO;
    if (st == STATUS_OK) {
        result = reply(request, job, entries);
    } else {
        struct http_refusal refusal = http_refusal_of(request->server, st);
        if (!gone)
            result = http_reply_error(request, &refusal, err.text);
        log_info("http", "pictures not made id=%s reason=\"%s\"", request->id, err.text);
    }
    for (int i = 0; i < IMAGE_REQUEST_N_MAX; i++)
        json_decref(entries[i]);
    return result;
}

enum MHD_Result http_images_generations(struct http_request *request)
{
    const struct http_options *options = &request->server->options;
    struct image_request wanted;
    struct image_refusal why;
    struct image_job job = {0};
    struct error err;
    enum status st =
        image_request_parse(&wanted, request->body, request->body_bytes, &options->model->settings,
                            options->model_name, &why, &err);
    if (st == STATUS_OK)
        st = image_job_start(&job, options->engine, options->model, &wanted, &why, &err);
    image_request_fini(&wanted);
    enum MHD_Result result;
    if (st != STATUS_OK)
        result = refuse(request, st, &why, &err);
    else if (job.request.stream)
        return http_stream_images(request, &job); /* which ends the job */
    else
        result = reply_whole(request, &job);
    image_job_fini(&job);
    return result;
}

enum MHD_Result http_file(struct http_request *request)
{
    const char *name = strrchr(request->path, '/') + 1;
    const char *extension = strrchr(name, '.');
    uint8_t *bytes;
    size_t n_bytes;
    char content_type[32];
    struct error err;
    enum status st = file_store_get(request->server->files, name, clock_monotonic_ms() / 1000,
                                    &bytes, &n_bytes, &err);
    if (st != STATUS_OK) {
        struct http_refusal refusal = http_refusal_of(request->server, st);
        return http_reply_error(request, &refusal, err.text);
    }
    snprintf(content_type, sizeof(content_type), "image/%s", extension ? extension + 1 : "png");
    return http_reply_bytes(request, 200, content_type, bytes, n_bytes);
}
