/*
 * http_pictures.h - pictures as JSON: what the plain reply and the stream of events have in common.
 */
#ifndef MGPT_DAEMON_HTTP_PICTURES_H
#define MGPT_DAEMON_HTTP_PICTURES_H

#include "daemon/http_internal.h"
#include "daemon/image_job.h"

/* {b64_json or url, seed, picture_index, width, height} of a finished picture; the caller ends
 * *out. */
enum status http_pictures_entry(json_t **out, struct http_request *request,
                                const struct image_job *job, const struct engine_event *event,
                                struct error *err);

/* {created, background, output_format, quality, size}. NULL: no memory. */
json_t *http_pictures_common(const struct image_job *job);

/* {input_tokens, output_tokens, ...} of n pictures. */
json_t *http_pictures_usage(const struct image_job *job, int n_pictures);

#endif
