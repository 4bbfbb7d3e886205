/*
 * http_client.c - libcurl's bytes to lines, lines to events; or a body as it is.
 */
#include "daemon/cli/http_client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "model/json_fields.h"

enum { KEY_HEADER_BYTES = 512 };

struct exchange {
    CURL *curl;
    char *line; /* not complete yet; of an error: the whole body */
    size_t n_bytes, capacity;
    char event[64];
    http_client_event on_event; /* NULL: the body is kept in `line` */
    void *context;
    enum status status;
    struct error *err;
};

static enum status append(struct exchange *exchange, const char *bytes, size_t n_bytes,
                          size_t limit)
{
    if (exchange->n_bytes + n_bytes > limit)
        return error_set(exchange->err, STATUS_INTERNAL,
                         "the daemon's answer has more than %zu bytes in one piece", limit);
    if (exchange->n_bytes + n_bytes + 1 > exchange->capacity) {
        size_t capacity = 2 * (exchange->n_bytes + n_bytes + 1);
        char *more = realloc(exchange->line, capacity);
        if (!more)
            return error_set(exchange->err, STATUS_NOMEM, "cannot allocate the daemon's answer");
        exchange->line = more;
        exchange->capacity = capacity;
    }
    memcpy(exchange->line + exchange->n_bytes, bytes, n_bytes);
    exchange->n_bytes += n_bytes;
    exchange->line[exchange->n_bytes] = 0;
    return STATUS_OK;
}

/* {"error": {"message": ...}} or whatever the answer was. */
static enum status refuse(struct exchange *exchange, enum status status, const json_t *answer)
{
    const json_t *error = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    return error_set(exchange->err, status, "the daemon says: %s",
                     message ? message : "(no reason)");
}

/* A daemon is a stranger, too: what would take far more memory than its text is not parsed. */
static json_t *parse(const char *text, json_error_t *reason)
{
    size_t n = json_fields_count_values(text, strlen(text));
    if (n <= HTTP_CLIENT_VALUES_MAX)
        return json_loads(text, JSON_REJECT_DUPLICATES, reason);
    snprintf(reason->text, sizeof(reason->text), "some %zu values, expected at most %d", n,
             HTTP_CLIENT_VALUES_MAX);
    return NULL;
}

static enum status take_data(struct exchange *exchange, const char *text)
{
    json_error_t reason;
    json_t *data = parse(text, &reason);
    if (!data)
        return error_set(exchange->err, STATUS_INTERNAL, "the daemon's event is no JSON: %s",
                         reason.text);
    enum status st =
        json_object_get(data, "error")
            ? refuse(exchange, STATUS_INTERNAL, data)
            : exchange->on_event(exchange->context, exchange->event, data, exchange->err);
    json_decref(data);
    return st;
}

static enum status take_line(struct exchange *exchange)
{
    char *line = exchange->line;
    if (exchange->n_bytes > 0 && line[exchange->n_bytes - 1] == '\r')
        line[exchange->n_bytes - 1] = 0;
    exchange->n_bytes = 0;
    if (strncmp(line, "event: ", 7) == 0)
        snprintf(exchange->event, sizeof(exchange->event), "%s", line + 7);
    else if (strncmp(line, "data: ", 6) == 0 && strcmp(line + 6, "[DONE]") != 0)
        return take_data(exchange, line + 6);
    return STATUS_OK;
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *context)
{
    struct exchange *exchange = context;
    size_t n_left = size * n;
    long code = 0;
    curl_easy_getinfo(exchange->curl, CURLINFO_RESPONSE_CODE, &code);
    if (code != 200 || !exchange->on_event) {
        exchange->status = append(exchange, bytes, n_left, HTTP_CLIENT_BODY_BYTES_MAX);
        return exchange->status == STATUS_OK ? size * n : 0;
    }
    while (n_left > 0 && exchange->status == STATUS_OK) {
        const char *end = memchr(bytes, '\n', n_left);
        size_t length = end ? (size_t)(end - bytes) : n_left;
        exchange->status = append(exchange, bytes, length, HTTP_CLIENT_LINE_BYTES_MAX);
        if (end && exchange->status == STATUS_OK)
            exchange->status = take_line(exchange);
        bytes += length + (end != NULL);
        n_left -= length + (end != NULL);
    }
    return exchange->status == STATUS_OK ? size * n : 0;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    return command_goes_on(context) ? 0 : 1;
}

static enum status judge(struct exchange *exchange, CURLcode outcome, const char *reason,
                         const char *url)
{
    long code = 0;
    curl_easy_getinfo(exchange->curl, CURLINFO_RESPONSE_CODE, &code);
    if (!command_goes_on(NULL))
        return error_set(exchange->err, STATUS_CANCELED, "interrupted");
    if (exchange->status != STATUS_OK)
        return exchange->status;
    if (outcome != CURLE_OK)
        return error_set(exchange->err, STATUS_IO, "cannot talk to '%s': %s", url,
                         reason[0] ? reason : curl_easy_strerror(outcome));
    if (code == 200)
        return STATUS_OK;
    json_error_t ignored;
    json_t *answer = exchange->line ? parse(exchange->line, &ignored) : NULL;
    enum status st = code == 429 ? STATUS_FULL : code / 100 == 4 ? STATUS_INVALID : STATUS_INTERNAL;
    if (answer)
        refuse(exchange, st, answer);
    else
        error_set(exchange->err, st, "'%s' answers with HTTP status %ld", url, code);
    json_decref(answer);
    return st;
}

/* body: NULL for GET. */
/* The key of a daemon that others reach comes from the environment: no command line shows it. */
static struct curl_slist *add_key(struct curl_slist *headers)
{
    char line[KEY_HEADER_BYTES];
    const char *key = getenv("MGPT_API_KEY");
    if (!key || !*key ||
        snprintf(line, sizeof(line), "Authorization: Bearer %s", key) >= (int)sizeof(line))
        return headers;
    struct curl_slist *longer = curl_slist_append(headers, line);
    return longer ? longer : headers;
}

static enum status perform(struct exchange *exchange, const char *base_url, const char *path,
                           const char *body)
{
    char url[1024], reason[CURL_ERROR_SIZE] = "";
    CURL *curl = exchange->curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    enum status st = STATUS_OK;
    headers = add_key(headers);
    size_t length = strlen(base_url);
    while (length > 0 && base_url[length - 1] == '/')
        length--;
    if (snprintf(url, sizeof(url), "%.*s%s", (int)length, base_url, path) >= (int)sizeof(url))
        st = error_set(exchange->err, STATUS_INVALID, "the URL is too long");
    else if (!curl || !headers)
        st = error_set(exchange->err, STATUS_NOMEM, "cannot allocate a request");
    if (st == STATUS_OK) {
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
        if (body)
            curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)HTTP_CLIENT_CONNECT_WAIT_S);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)HTTP_CLIENT_SILENCE_S);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        st = judge(exchange, curl_easy_perform(curl), reason, url);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return st;
}

enum status http_client_post_events(const char *base_url, const char *path, json_t *take_body,
                                    http_client_event on_event, void *context, struct error *err)
{
    struct exchange exchange = {.on_event = on_event, .context = context, .err = err};
    char *body = take_body ? json_dumps(take_body, JSON_COMPACT) : NULL;
    json_decref(take_body);
    enum status st = body ? perform(&exchange, base_url, path, body)
                          : error_set(err, STATUS_NOMEM, "cannot allocate a request");
    free(exchange.line);
    free(body);
    return st;
}

enum status http_client_get(const char *base_url, const char *path, char **text, struct error *err)
{
    struct exchange exchange = {.err = err};
    *text = NULL;
    enum status st = perform(&exchange, base_url, path, NULL);
    if (st == STATUS_OK && !exchange.line)
        st = error_set(err, STATUS_INTERNAL, "the daemon's answer to %s is empty", path);
    if (st == STATUS_OK)
        *text = exchange.line;
    else
        free(exchange.line);
    return st;
}

enum status http_client_prepare_threads(struct error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return error_set(err, STATUS_INTERNAL, "cannot prepare libcurl");
    return STATUS_OK;
}
