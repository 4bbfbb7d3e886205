/*
 * generate.c - `mgpt generate`: a prompt to picture files, by a daemon (--url) or by workers of its
 * own (--local).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base64.h"
#include "daemon/cli/commands.h"
#include "daemon/cli/http_client.h"
#include "daemon/cli/progress_bar.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"
#include "daemon/image_job.h"
#include "daemon/kv_size.h"
#include "model/picture_file.h"
#include "model/unirep.h"

enum { LOOK_MS = 200, PATH_BYTES = 4096, COUNT_MAX = 1 << 24 /* tokens of a picture */ };

struct generation {
    const struct settings *settings;
    struct progress_bar bar;
    int done[IMAGE_REQUEST_N_MAX]; /* tokens of each picture */
    int n_finished;
    bool is_finished[IMAGE_REQUEST_N_MAX];
};

/* fox.png for one picture; fox-0.png, fox-1.png ... for several. */
static void name_file(char path[PATH_BYTES], const struct settings *settings, int index)
{
    const char *out = settings->out;
    const char *dot = strrchr(out, '.');
    if (dot && strchr(dot, '/'))
        dot = NULL;
    int stem = dot ? (int)(dot - out) : (int)strlen(out);
    if (settings->n == 1)
        snprintf(path, PATH_BYTES, "%s", out);
    else
        snprintf(path, PATH_BYTES, "%.*s-%d%s", stem, out, index, dot ? dot : "");
}

static enum status write_file(const char *path, const uint8_t *bytes, size_t n_bytes,
                              struct error *err)
{
    FILE *file = fopen(path, "wbe");
    bool good = file && fwrite(bytes, 1, n_bytes, file) == n_bytes;
    if (file)
        good = fclose(file) == 0 && good;
    return good ? STATUS_OK : error_set(err, STATUS_IO, "cannot write '%s'", path);
}

/* Writes one picture and says where it is. */
static enum status finish(struct generation *generation, int index, uint64_t seed,
                          const uint8_t *bytes, size_t n_bytes, struct error *err)
{
    char path[PATH_BYTES];
    name_file(path, generation->settings, index);
    enum status st = write_file(path, bytes, n_bytes, err);
    if (st != STATUS_OK)
        return st;
    progress_bar_end(&generation->bar);
    return session_print_json(json_pack("{s:s, s:I, s:i}", "file", path, "seed", (json_int_t)seed,
                                        "picture_index", index),
                              err);
}

static void show(struct generation *generation, int index, int done, int total, double eta_s)
{
    int sum = 0;
    if (index < 0 || index >= IMAGE_REQUEST_N_MAX || done < 0 || total < 0)
        return;
    generation->done[index] = done;
    for (int i = 0; i < generation->settings->n; i++)
        sum += generation->done[i];
    progress_bar_show(&generation->bar, "tokens", sum, total * generation->settings->n, eta_s);
}

/* The body of the request, which --local reads too: one way to say what is wanted. */
static json_t *build_body(const struct settings *settings)
{
    char size[32];
    int format = picture_parse_format(settings->out);
    json_t *body = json_pack(
        "{s:s, s:i, s:b, s:b, s:s}", "prompt", settings->prompt, "n", settings->n, "stream", 1,
        "progress", 1, "output_format",
        image_request_format_name(format < 0 ? PICTURE_PNG : (enum picture_format)format));
    if (!body)
        return NULL;
    snprintf(size, sizeof(size), "%dx%d", settings->size.width, settings->size.height);
    if (settings->size.width > 0)
        json_object_set_new(body, "size", json_string(size));
    if (settings->has_seed)
        json_object_set_new(body, "seed", json_integer((json_int_t)settings->seed));
    if (settings->guidance >= 0)
        json_object_set_new(body, "guidance_scale", json_real(settings->guidance));
    if (settings->temperature >= 0)
        json_object_set_new(body, "temperature", json_real(settings->temperature));
    if (settings->image_top_k >= 0)
        json_object_set_new(body, "image_top_k", json_integer(settings->image_top_k));
    return body;
}

/* ---- by a daemon ---- */

/* A small number of at least 0; -1: the daemon sent something else. */
static int int_of(const json_t *data, const char *key)
{
    const json_t *value = json_object_get(data, key);
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    return number >= 0 && number <= COUNT_MAX ? (int)number : -1;
}

/* What a daemon calls a picture, before it becomes a file: one of those asked for, and a picture.
 */
static enum status check_picture(const struct generation *generation, int index,
                                 const uint8_t *bytes, size_t n_bytes, struct error *err)
{
    struct picture *picture;
    if (index < 0 || index >= generation->settings->n || generation->is_finished[index])
        return error_set(err, STATUS_INTERNAL,
                         "the daemon sent a picture %d, expected 0 to %d, each once", index,
                         generation->settings->n - 1);
    enum status st = picture_read(&picture, bytes, n_bytes, NULL, err);
    picture_destroy(picture);
    return st == STATUS_OK
               ? st
               : error_wrap(err, STATUS_INTERNAL, "the daemon's picture of %zu bytes", n_bytes);
}

static enum status on_event(void *context, const char *name, const json_t *data, struct error *err)
{
    struct generation *generation = context;
    size_t n_bytes;
    if (strcmp(name, "progress") == 0)
        show(generation, int_of(data, "picture_index"), int_of(data, "tokens_done"),
             int_of(data, "tokens_total"), json_number_value(json_object_get(data, "eta_s")));
    if (strcmp(name, "image_generation.completed") != 0)
        return STATUS_OK;
    const json_t *text = json_object_get(data, "b64_json");
    uint8_t *bytes = json_is_string(text) ? base64_decode(json_string_value(text),
                                                          json_string_length(text), &n_bytes)
                                          : NULL;
    if (!bytes)
        return error_set(err, STATUS_INTERNAL, "the daemon's picture is no base64");
    int index = int_of(data, "picture_index");
    enum status st = check_picture(generation, index, bytes, n_bytes, err);
    if (st == STATUS_OK)
        st = finish(generation, index, (uint64_t)json_integer_value(json_object_get(data, "seed")),
                    bytes, n_bytes, err);
    if (st == STATUS_OK) {
        generation->is_finished[index] = true;
        generation->n_finished++;
    }
    free(bytes);
    return st;
}

static enum status ask_daemon(struct generation *generation, struct error *err)
{
    const struct settings *settings = generation->settings;
    enum status st = http_client_post_events(settings->url, "/v1/images/generations",
                                             build_body(settings), on_event, generation, err);
    if (st == STATUS_OK && generation->n_finished != settings->n)
        st = error_set(err, STATUS_IO, "the daemon ended the stream after %d of %d pictures",
                       generation->n_finished, settings->n);
    return st;
}

/* ---- by workers of our own ---- */

static enum status follow_job(struct generation *generation, struct image_job *job,
                              struct error *err)
{
    while (job->n_ended < job->n_submitted) {
        struct engine_event *event = NULL;
        enum status st = STATUS_OK;
        uint8_t *bytes = NULL;
        size_t n_bytes = 0;
        if (!command_goes_on(NULL))
            return error_set(err, STATUS_CANCELED, "interrupted");
        if (image_job_wait(job, -1, LOOK_MS, &event) != IMAGE_JOB_EVENT)
            continue;
        if (event->kind == ENGINE_EVENT_FAILED)
            st = error_set(err, event->error.code, "%s", event->error.text);
        else if (event->kind == ENGINE_EVENT_FINISHED)
            st = image_job_write(job, event, &bytes, &n_bytes, err);
        else
            show(generation, (int)event->tag, event->tokens_done, event->tokens_total,
                 event->eta_s);
        if (bytes)
            st = finish(generation, (int)event->tag, job->request.seed, bytes, n_bytes, err);
        free(bytes);
        mail_destroy(&event->mail);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

/* For these pictures alone. A prompt that is none is refused when they start, with the reason. */
static int needed_blocks(const struct served_model *model, const struct image_request *request)
{
    struct ids prompt = {0};
    struct error unused;
    served_model_text_to_image(model, request->prompt, request->prompt_bytes, request->size,
                               &prompt, &unused);
    int64_t n_positions = (int64_t)prompt.n + unirep_length(request->size);
    ids_fini(&prompt);
    return request->n * kv_size_guided_blocks(&model->config, n_positions) + 2;
}

static enum status start_local(struct session *session, const struct settings *settings,
                               const struct image_request *request, struct error *err)
{
    struct engine_options options;
    settings_engine(&options, settings, session->model);
    options.n_pipelines = 1;
    options.codec = true;
    options.picture_pixels = session_pixels(request->size.width, request->size.height);
    if (options.kv_blocks == 0)
        options.kv_blocks = needed_blocks(session->model, request);
    return session_start(session, &options, err);
}

static enum status run_local(struct generation *generation, struct session *session,
                             struct error *err)
{
    struct image_request request = {0};
    struct image_refusal refusal;
    struct image_job job = {0};
    json_t *body = build_body(generation->settings);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!text)
        return error_set(err, STATUS_NOMEM, "cannot allocate a request");
    const struct settings *settings = generation->settings;
    enum status st = served_model_open(&session->model, settings->local, SERVED_ALL, err);
    if (st == STATUS_OK)
        st = image_request_parse(&request, text, strlen(text), &session->model->settings,
                                 session->model->name, &refusal, err);
    if (st == STATUS_OK)
        st = start_local(session, settings, &request, err);
    if (st == STATUS_OK)
        st = image_job_start(&job, session->engine, session->model, &request, &refusal, err);
    if (st == STATUS_OK)
        st = follow_job(generation, &job, err);
    image_job_fini(&job);
    image_request_fini(&request);
    free(text);
    return st;
}

int command_generate(int argc, char **argv)
{
    static const struct option table[] = {
        {"PROMPT", NULL, OPTION_TEXT, SETTING(prompt), .help = "what the picture shows"},
        {"size", "WxH", OPTION_SIZE, SETTING(size),
         .help = "in pixels, multiples of 32 [the model's default]"},
        {"count", "N", OPTION_INT, SETTING(n), .letter = 'n', .default_value = "1", .min = 1,
         .max = IMAGE_REQUEST_N_MAX, .help = "pictures of one seed"},
        {"out", "FILE", OPTION_TEXT, SETTING(out), .letter = 'o', .default_value = "picture.png",
         .help = "png, jpeg or webp; several become FILE-0, FILE-1 ..."},
        {"seed", "N", OPTION_TEXT, SETTING(seed_text),
         .help = "of the random numbers [a new one each time]", .heading = "Sampling"},
        {"guidance", "G", OPTION_FLOAT, SETTING(guidance), .max = IMAGE_REQUEST_GUIDANCE_MAX,
         .help = "1: none [the model's default]"},
        {"temperature", "T", OPTION_FLOAT, SETTING(temperature),
         .max = IMAGE_REQUEST_TEMPERATURE_MAX, .help = "0: the best token [the model's default]"},
        {"image-top-k", "K", OPTION_INT, SETTING(image_top_k), .max = IMAGE_REQUEST_TOP_K_MAX,
         .help = "0: all [the model's default]"},
        {"url", "URL", OPTION_TEXT, SETTING(url), .default_value = "http://127.0.0.1:8086",
         .help = "of the daemon", .heading = "Who does it"},
        {"local", "DIR", OPTION_TEXT, SETTING(local),
         .help = "no daemon: a checkpoint folder, workers of our own"},
        {"compute", "TYPE", OPTION_CHOICE, SETTING(compute), .choices = settings_computes,
         .default_value = "bf16", .help = "number format, with --local"},
        ROWS_STAGES,
        ROW_VQ,
        ROW_DEVICE,
        ROW_THREADS,
        ROW_KV_BLOCKS("what the request needs"),
        {0}};
    static const struct option_set set = {
        .program = "mgpt generate",
        .about = "Makes pictures from a text; prints {\"file\", \"seed\", ...} for each.",
        .options = table,
        .example = "mgpt generate 'a red fox in the snow' --size 768x768 -o fox.png"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    outcome = settings_read_seed(&settings, "mgpt generate");
    if (outcome >= 0)
        return outcome;
    struct generation generation = {.settings = &settings};
    progress_bar_init(&generation.bar);
    enum status st =
        settings.local ? run_local(&generation, &session, &err) : ask_daemon(&generation, &err);
    progress_bar_end(&generation.bar);
    return session_finish(&session, st, &err);
}
