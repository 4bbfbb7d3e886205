/*
 * http_pictures.c - base64, URLs, counts.
 */
#include "daemon/http_pictures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/base64.h"

/* The client's own name of this server when it sent a plain one, else the address we listen on. */
static void base_url(struct http_request *request, char url[HTTP_URL_BYTES])
{
    const char *host = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Host");
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";
    if (host && host[0] && strlen(host) < HTTP_URL_BYTES - 64 &&
        strspn(host, plain) == strlen(host))
        snprintf(url, HTTP_URL_BYTES, "http://%s", host);
    else
        snprintf(url, HTTP_URL_BYTES, "%s", request->server->url);
}

static enum status add_url(json_t *entry, struct http_request *request, const struct image_job *job,
                           uint8_t *bytes, size_t n_bytes, struct error *err)
{
    char name[FILE_STORE_NAME_BYTES];
    char url[HTTP_URL_BYTES];
    enum status st = file_store_put(request->server->files, bytes, n_bytes,
                                    image_request_format_name(job->request.format),
                                    clock_monotonic_ms() / 1000, name, err);
    if (st != STATUS_OK)
        return st;
    base_url(request, url);
    json_object_set_new(entry, "url", json_sprintf("%s/v1/files/%s", url, name));
    return STATUS_OK;
}

static enum status add_base64(json_t *entry, uint8_t *bytes, size_t n_bytes, struct error *err)
{
    char *text = base64_encode(bytes, n_bytes);
    free(bytes);
    if (!text)
        return error_set(err, STATUS_NOMEM, "cannot allocate a picture of %zu bytes", n_bytes);
    json_object_set_new(entry, "b64_json", json_string_nocheck(text));
    free(text);
    return STATUS_OK;
}

enum status http_pictures_entry(json_t **out, struct http_request *request,
                                const struct image_job *job, const struct engine_event *event,
                                struct error *err)
{
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    json_t *entry = json_object();
    enum status st = entry ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate a reply");
    if (st == STATUS_OK)
        st = image_job_write(job, event, &bytes, &n_bytes, err);
    if (st == STATUS_OK)
        st = job->request.url ? add_url(entry, request, job, bytes, n_bytes, err)
                              : add_base64(entry, bytes, n_bytes, err);
    if (st != STATUS_OK) {
        json_decref(entry);
        return st;
    }
    json_object_set_new(entry, "seed", json_integer((json_int_t)job->request.seed));
    json_object_set_new(entry, "picture_index", json_integer((json_int_t)event->tag));
    json_object_set_new(entry, "width", json_integer(event->width));
    json_object_set_new(entry, "height", json_integer(event->height));
    *out = entry;
    return STATUS_OK;
}

json_t *http_pictures_common(const struct image_job *job)
{
    const struct image_request *request = &job->request;
    char size[32];
    snprintf(size, sizeof(size), "%dx%d", request->size.width, request->size.height);
    return json_pack("{s:I, s:s, s:s, s:s, s:s}", "created", (json_int_t)clock_unix_s(),
                     "background", "opaque", "output_format",
                     image_request_format_name(request->format), "quality", "auto", "size", size);
}

json_t *http_pictures_usage(const struct image_job *job, int n_pictures)
{
    int output = n_pictures * image_job_picture_tokens(job);
    return json_pack("{s:i, s:{s:i, s:i}, s:i, s:{s:i, s:i}, s:i}", "input_tokens", job->n_prompt,
                     "input_tokens_details", "text_tokens", job->n_prompt, "image_tokens", 0,
                     "output_tokens", output, "output_tokens_details", "text_tokens", 0,
                     "image_tokens", output, "total_tokens", job->n_prompt + output);
}
