/*
 * http_internal.h - what the http_*.c files share: a request as a handler sees it, and ways to
 * answer.
 */
#ifndef MGPT_DAEMON_HTTP_INTERNAL_H
#define MGPT_DAEMON_HTTP_INTERNAL_H

#include <jansson.h>
#include <microhttpd.h>

#include "daemon/file_store.h"
#include "daemon/http_server.h"
#include "daemon/http_watch.h"

enum { HTTP_ID_BYTES = 128, HTTP_URL_BYTES = 300 };

struct http_server {
    struct http_options options;
    struct MHD_Daemon *daemon;
    struct file_store *files;
    struct http_watch *watch;
    char url[HTTP_URL_BYTES];
    int64_t started_s;
    int n_open; /* requests between their first byte and the end of their reply; atomic */
};

/* One request on its connection's thread. */
struct http_request {
    struct http_server *server;
    struct MHD_Connection *connection;
    const char *method, *path;
    char id[HTTP_ID_BYTES]; /* X-Request-Id, the client's or ours */
    char *body;             /* [body_bytes], a NUL behind it */
    size_t body_bytes, body_capacity;
    size_t seen_bytes; /* of the body, with what was thrown away */
    bool too_large, no_memory;
};

typedef enum MHD_Result (*http_handler)(struct http_request *request);

/* ---- replies: each ends the request ---- */

/* What a client should do after an error. */
struct http_refusal {
    unsigned int code;  /* 400 ... */
    const char *type;   /* "invalid_request_error" */
    const char *reason; /* OpenAI's `code`: "unknown_field" */
    const char *field;  /* OpenAI's `param`; NULL or "" for none */
    int retry_after_s;  /* 0: none */
    bool retry;         /* x-should-retry */
    const char *allow;  /* of 405; NULL */
};

enum MHD_Result http_reply_json(struct http_request *request, unsigned int code,
                                json_t *take_value);
enum MHD_Result http_reply_bytes(struct http_request *request, unsigned int code,
                                 const char *content_type, void *take_bytes, size_t n_bytes);
enum MHD_Result http_reply_error(struct http_request *request, const struct http_refusal *refusal,
                                 const char *text);

/* The refusal that a status of the engine stands for; field and reason are left to the caller. */
struct http_refusal http_refusal_of(struct http_server *server, enum status status);

/* {"error": {...}} as in a reply, for streams. */
json_t *http_error_json(const struct http_refusal *refusal, const char *text);

/* Headers that every reply has. */
void http_add_headers(const struct http_request *request, struct MHD_Response *response);

/* The client's socket, to be watched while a handler waits; the connection's own limit of time
 * rests until http_resume_timeout(). */
int http_client_fd(struct http_request *request);
void http_pause_timeout(struct http_request *request);
void http_resume_timeout(struct http_request *request);

/* ---- handlers ---- */

struct image_job;

enum MHD_Result http_images_generations(struct http_request *request); /* http_images.c */
enum MHD_Result http_file(struct http_request *request);
enum MHD_Result http_stream_images(struct http_request *request,
                                   struct image_job *take_job); /* http_stream.c */
enum MHD_Result http_models(struct http_request *request);      /* http_status.c */
enum MHD_Result http_health(struct http_request *request);
enum MHD_Result http_health_live(struct http_request *request);
enum MHD_Result http_health_ready(struct http_request *request);
enum MHD_Result http_version(struct http_request *request);
enum MHD_Result http_metrics(struct http_request *request); /* http_metrics.c */

#endif
