/*
 * bench_http.c - the server under load is a daemon: one thread and one connection an order, as a
 * client would have them; counters out of /metrics.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/bench.h"
#include "daemon/cli/http_client.h"

enum { THREAD_STACK_BYTES = 1 << 20, URL_BYTES = 1024 };

struct http {
    struct bench_target target; /* first */
    const struct bench_settings *settings;
    char url[URL_BYTES];
    struct mailbox *box;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int n_threads; /* behind the lock */
    bool stops;    /* behind the lock: nobody waits for pictures any more */
};

struct client_mail {
    struct mail mail;
    struct bench_event event;
};

/* One order and its thread. */
struct client {
    struct http *http;
    json_t *body;
    struct bench_event last;
    bool finished;
};

static void destroy_mail(struct mail *mail)
{
    free(mail);
}

/* Without memory for a mail the bench could wait for ever: that is a CHECK of the system. */
static void post(struct http *http, const struct bench_event *event)
{
    struct client_mail *mail = calloc(1, sizeof(*mail));
    if (!mail)
        abort();
    mail->mail.destroy = destroy_mail;
    mail->event = *event;
    mailbox_post(http->box, &mail->mail);
}

static enum status on_event(void *context, const char *name, const json_t *data, struct error *err)
{
    struct client *client = context;
    struct http *http = client->http;
    pthread_mutex_lock(&http->lock);
    bool stops = http->stops;
    pthread_mutex_unlock(&http->lock);
    if (stops)
        return error_set(err, STATUS_CANCELED, "the bench ends");
    if (strcmp(name, "progress") == 0 &&
        json_integer_value(json_object_get(data, "tokens_done")) > 0) {
        client->last.kind = BENCH_ROW;
        post(http, &client->last);
    }
    if (strcmp(name, "image_generation.completed") == 0) {
        const json_t *usage = json_object_get(data, "usage");
        client->last.n_prompt = (int)json_integer_value(json_object_get(usage, "input_tokens"));
        client->finished = true;
    }
    return STATUS_OK;
}

static void *run_client(void *context)
{
    struct client *client = context;
    struct http *http = client->http;
    struct error err;
    enum status st = http_client_post_events(http->url, "/v1/images/generations", client->body,
                                             on_event, client, &err);
    if (st == STATUS_OK && !client->finished)
        st = error_set(&err, STATUS_IO, "the daemon ended the stream without a picture");
    client->last.kind = st == STATUS_OK ? BENCH_FINISHED : BENCH_FAILED;
    if (st != STATUS_OK)
        snprintf(client->last.text, sizeof(client->last.text), "%.*s", BENCH_ERROR_BYTES - 1,
                 err.text);
    post(http, &client->last);
    free(client);
    pthread_mutex_lock(&http->lock);
    http->n_threads--;
    pthread_cond_signal(&http->ended);
    pthread_mutex_unlock(&http->lock);
    return NULL;
}

static enum status start_thread(struct client *client)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_mutex_lock(&client->http->lock);
    int failed = pthread_create(&thread, &attributes, run_client, client);
    client->http->n_threads += !failed;
    pthread_mutex_unlock(&client->http->lock);
    pthread_attr_destroy(&attributes);
    return failed ? STATUS_NOMEM : STATUS_OK;
}

static json_t *build_body(const struct settings *settings, const struct bench_order *order)
{
    char size[32];
    snprintf(size, sizeof(size), "%dx%d", order->size.width, order->size.height);
    json_t *body =
        json_pack("{s:s, s:s, s:i, s:I, s:b, s:b}", "prompt", order->prompt, "size", size, "n", 1,
                  "seed", (json_int_t)(order->seed & INT64_MAX), "stream", 1, "progress", 1);
    if (!body)
        return NULL;
    if (settings->guidance >= 0)
        json_object_set_new(body, "guidance_scale", json_real(settings->guidance));
    if (settings->temperature >= 0)
        json_object_set_new(body, "temperature", json_real(settings->temperature));
    if (settings->image_top_k >= 0)
        json_object_set_new(body, "image_top_k", json_integer(settings->image_top_k));
    return body;
}

static enum status submit(struct bench_target *target, const struct bench_order *order,
                          struct error *err)
{
    struct http *http = (struct http *)(void *)target;
    struct client *client = calloc(1, sizeof(*client));
    json_t *body = build_body(&http->settings->base, order);
    if (client) {
        *client = (struct client){.http = http, .body = body, .last = {.tag = order->tag}};
        if (body && start_thread(client) == STATUS_OK)
            return STATUS_OK;
    }
    json_decref(body);
    free(client);
    return error_set(err, STATUS_NOMEM, "cannot start a client's thread");
}

static enum status next(struct bench_target *target, int wait_ms, struct bench_event *event,
                        struct error *err)
{
    struct http *http = (struct http *)(void *)target;
    struct client_mail *mail = (struct client_mail *)(void *)mailbox_wait(http->box, wait_ms);
    (void)err;
    *event = mail ? mail->event : (struct bench_event){.kind = BENCH_NOTHING};
    mail_destroy(mail ? &mail->mail : NULL);
    return STATUS_OK;
}

/* ---- /metrics ---- */

/* The text of a label, cut to `bytes`; false when the line has no such label. */
static bool read_label(const char *line, const char *label, char *out, size_t bytes)
{
    char key[64];
    const char *end = strchr(line, '}');
    snprintf(key, sizeof(key), "%s=\"", label);
    for (const char *at = strstr(line, key); at && at < end; at = strstr(at + 1, key)) {
        if (at[-1] != '{' && at[-1] != ',')
            continue;
        at += strlen(key);
        snprintf(out, bytes, "%.*s", (int)strcspn(at, "\""), at);
        return true;
    }
    return false;
}

static int int_label(const char *line, const char *label)
{
    char text[32] = "0";
    read_label(line, label, text, sizeof(text));
    return (int)strtol(text, NULL, 10);
}

static void read_model(struct bench_target *target, const char *line)
{
    read_label(line, "model_name", target->name, sizeof(target->name));
    target->config = (struct model_config){.hidden = int_label(line, "hidden"),
                                           .inter = int_label(line, "inter"),
                                           .n_layers = int_label(line, "layers"),
                                           .n_heads = int_label(line, "heads"),
                                           .n_kv_heads = int_label(line, "kv_heads"),
                                           .head_dim = int_label(line, "head_dim"),
                                           .vocab = int_label(line, "vocab")};
    target->code_rows = int_label(line, "code_rows");
    target->item_bytes = int_label(line, "item_bytes");
}

static struct bench_stage *find_stage(struct bench_figures *out, const char *line)
{
    int pipeline = int_label(line, "pipeline"), k = int_label(line, "stage");
    int n = out->n_stages < BENCH_STAGES_MAX ? out->n_stages : BENCH_STAGES_MAX;
    for (int i = 0; i < n; i++)
        if (out->stages[i].pipeline == pipeline && out->stages[i].stage == k)
            return &out->stages[i];
    return NULL;
}

/* stage_busy_seconds_total comes first of the lines by stage: it tells which stages there are. */
static void add_stage(struct bench_figures *out, const char *line, double busy_s)
{
    int pipeline = int_label(line, "pipeline");
    if (pipeline >= out->n_pipelines)
        out->n_pipelines = pipeline + 1;
    if (out->n_stages++ >= BENCH_STAGES_MAX)
        return;
    struct bench_stage *stage = &out->stages[out->n_stages - 1];
    stage->pipeline = pipeline;
    stage->stage = int_label(line, "stage");
    stage->busy_s = busy_s;
    read_label(line, "units", stage->units, sizeof(stage->units));
}

static void read_sample(struct http *http, struct bench_figures *out, const char *line)
{
    struct {
        const char *name;
        double *sum;
    } sums[] = {{"steps_total", &out->plans},
                {"rows_total", &out->rows},
                {"stage_useful_seconds_total", &out->useful_s},
                {"active_seconds_total", &out->active_s},
                {"codec_busy_seconds_total", &out->codec_busy_s},
                {"stage_link_bytes_total", &out->link_bytes},
                {"stage_weight_bytes", &out->weight_bytes}};
    const char *space = strrchr(line, ' ');
    size_t length = strcspn(line, "{ ");
    if (strncmp(line, "mgpt:", 5) != 0 || !space)
        return;
    double value = strtod(space + 1, NULL);
    line += 5;
    length -= 5;
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
        if (strlen(sums[i].name) == length && strncmp(line, sums[i].name, length) == 0)
            *sums[i].sum += value;
    if (strncmp(line, "model_config_info{", 18) == 0)
        read_model(&http->target, line);
    if (strncmp(line, "stage_busy_seconds_total{", 25) == 0)
        add_stage(out, line, value);
    struct bench_stage *stage =
        strncmp(line, "stage_wait_seconds_total{", 25) == 0 ? find_stage(out, line) : NULL;
    if (stage)
        stage->wait_s = value;
}

static enum status figures(struct bench_target *target, struct bench_figures *out,
                           struct error *err)
{
    struct http *http = (struct http *)(void *)target;
    char *text, *rest = NULL;
    *out = (struct bench_figures){0};
    enum status st = http_client_get(http->url, "/metrics", &text, err);
    if (st != STATUS_OK)
        return st;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        read_sample(http, out, line);
    free(text);
    if (out->n_stages == 0)
        return error_set(err, STATUS_INVALID, "'%s' has no stages in its /metrics: no mgptd?",
                         http->url);
    return STATUS_OK;
}

/* ---- open and close ---- */

static void close_http(struct bench_target *target)
{
    struct http *http = (struct http *)(void *)target;
    pthread_mutex_lock(&http->lock);
    http->stops = true;
    while (http->n_threads > 0)
        pthread_cond_wait(&http->ended, &http->lock);
    pthread_mutex_unlock(&http->lock);
    pthread_mutex_destroy(&http->lock);
    pthread_cond_destroy(&http->ended);
    if (http->box)
        mailbox_close(http->box);
    mailbox_drop(http->box);
    free(http);
}

static bool is_here(const char *url)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t length = strlen(names[i]);
        if (strncmp(host, names[i], length) == 0 && strchr(":/", host[length]))
            return true; /* strchr finds the NUL too */
    }
    return false;
}

enum status bench_http_open(struct bench_target **out, const struct bench_settings *settings,
                            struct error *err)
{
    struct http *http = calloc(1, sizeof(*http));
    struct bench_figures *first = calloc(1, sizeof(*first));
    *out = NULL;
    if (!http || !first) {
        free(http);
        free(first);
        return error_set(err, STATUS_NOMEM, "cannot allocate a bench");
    }
    http->target = (struct bench_target){.here = is_here(settings->base.url),
                                         .guidance = settings->base.guidance,
                                         .submit = submit,
                                         .next = next,
                                         .figures = figures,
                                         .close = close_http};
    http->settings = settings;
    snprintf(http->url, sizeof(http->url), "%s", settings->base.url);
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->ended, NULL);
    enum status st = http_client_prepare_threads(err);
    if (st == STATUS_OK)
        st = mailbox_create(&http->box, 0, err);
    if (st == STATUS_OK)
        st = figures(&http->target, first, err); /* also tells the model's shape */
    free(first);
    if (st != STATUS_OK) {
        close_http(&http->target);
        return st;
    }
    *out = &http->target;
    return STATUS_OK;
}
