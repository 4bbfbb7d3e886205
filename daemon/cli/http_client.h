/*
 * http_client.h - `mgpt` asks a daemon: a POST whose answer is a stream of events, or an error in
 * OpenAI's shape; a plain GET. The daemon's key, where it wants one, is taken from MGPT_API_KEY.
 *
 * Threads: any, each call for itself.
 */
#ifndef MGPT_DAEMON_CLI_HTTP_CLIENT_H
#define MGPT_DAEMON_CLI_HTTP_CLIENT_H

#include <jansson.h>

#include "base/error.h"

enum {
    HTTP_CLIENT_LINE_BYTES_MAX = 512 << 20, /* one event: a picture as base64 */
    HTTP_CLIENT_VALUES_MAX = 100000,        /* of the JSON of one answer or event */
    HTTP_CLIENT_BODY_BYTES_MAX = 4 << 20,   /* of errors and of plain answers */
    HTTP_CLIENT_CONNECT_WAIT_S = 10,
    HTTP_CLIENT_SILENCE_S = 60 /* without a byte; the daemon sends comments more often than that */
};

/* One event, borrowed for the call. A status other than STATUS_OK ends the request. */
typedef enum status (*http_client_event)(void *context, const char *name, const json_t *data,
                                         struct error *err);

/*
 * Posts a JSON body (taken) to BASE_URL + path and hands out the events of the answer.
 *
 * STATUS_IO: no connection, or it broke.  STATUS_FULL: 429.  STATUS_INVALID: another 4xx, with the
 * daemon's words. STATUS_INTERNAL: 5xx, or an answer that is no stream of events.  STATUS_CANCELED:
 * command_goes_on() said no.
 */
enum status http_client_post_events(const char *base_url, const char *path, json_t *take_body,
                                    http_client_event on_event, void *context, struct error *err);

/* The body of a GET; the caller frees *text, which ends with a NUL. Statuses as above. */
enum status http_client_get(const char *base_url, const char *path, char **text, struct error *err);

/* Once, before threads use this. */
enum status http_client_prepare_threads(struct error *err);

#endif
