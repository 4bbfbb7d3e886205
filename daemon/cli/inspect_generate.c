/*
 * inspect_generate.c - `mgpt inspect generate`: one request through stage processes of its own,
 * every token told.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"
#include "daemon/kv_size.h"
#include "daemon/picture_output.h"
#include "model/conversation.h"
#include "model/unirep.h"

enum { MAX_TOKENS = 8192, OPENING_TOKENS = 3 };

/* The conversation of a lone --prompt: with --size the text-to-image template, else the question
 * itself. */
static enum status build_question(struct session *session, const char *question, struct ids *out,
                                  struct error *err)
{
    struct conversation *conversation;
    enum status st = conversation_create(&conversation, err);
    if (st != STATUS_OK)
        return st;
    st = conversation_add_text(conversation, question, strlen(question), err);
    if (st == STATUS_OK)
        st = conversation_end_turn(conversation, err);
    if (st == STATUS_OK)
        st = conversation_encode(conversation, session->model->tokenizer,
                                 session->model->vocabulary, NULL, 0, out, err);
    conversation_destroy(conversation);
    return st;
}

static enum status build_prompt(struct session *session, const struct settings *settings,
                                struct ids *out, struct error *err)
{
    struct picture_size size = {settings->size.width, settings->size.height};
    if (settings->prompt && size.width > 0)
        return served_model_text_to_image(session->model, settings->prompt,
                                          strlen(settings->prompt), size, out, err);
    if (settings->prompt)
        return build_question(session, settings->prompt, out, err);
    enum status st = STATUS_OK;
    if (size.width > 0)
        st = unirep_check_size(session->model->vocabulary, size, err);
    if (st == STATUS_OK)
        st = session_conversation_prompt(session, settings, out, err);
    if (st == STATUS_OK && size.width > 0)
        st = unirep_build_opening(session->model->vocabulary, size, out, err);
    return st;
}

/* A session whose engine encoded the pictures of the prompt ends it: the next one has other
 * workers. */
static void end_engine(struct session *session)
{
    engine_client_fini(&session->client);
    engine_destroy(session->engine);
    session->engine = NULL;
}

static enum status start_stages(struct session *session, const struct settings *settings,
                                const struct ids *prompt, int n_new, struct error *err)
{
    struct engine_options options;
    settings_engine(&options, settings, session->model);
    options.n_pipelines = 1;
    options.codec = settings->out != NULL;
    options.picture_pixels = session_pixels(settings->size.width, settings->size.height);
    if (options.kv_blocks == 0)
        options.kv_blocks =
            kv_size_guided_blocks(&session->model->config, (int64_t)prompt->n + n_new) + 2;
    end_engine(session);
    return session_start(session, &options, err);
}

static enum status run(struct session *session, const struct settings *settings,
                       const struct ids *prompt, struct engine_event **event, struct error *err)
{
    struct picture_size size = {settings->size.width, settings->size.height};
    bool picture = size.width > 0;
    int n_new = picture                    ? (int)unirep_length(size) - OPENING_TOKENS
                : settings->max_tokens > 0 ? settings->max_tokens
                                           : MAX_TOKENS;
    enum status st =
        picture ? served_model_check_length(session->model, prompt->n, size, err) : STATUS_OK;
    if (st == STATUS_OK)
        st = start_stages(session, settings, prompt, n_new, err);
    if (st != STATUS_OK)
        return st;
    struct engine_request request = {.work = picture ? ENGINE_PICTURE : ENGINE_FREE,
                                     .prompt = prompt->ids,
                                     .n_prompt = (int)prompt->n,
                                     .width = size.width,
                                     .height = size.height,
                                     .max_tokens = n_new,
                                     .decode = picture && settings->out};
    settings_sampling(&request.sampling, settings, &session->model->settings);
    return engine_client_run(&session->client, &request, event, err);
}

/* ---- the answer ---- */

/* The text between pictures, end of turn left out. */
static enum status read_text(const struct served_model *model, const struct engine_event *event,
                             char **text, size_t *bytes, struct error *err)
{
    struct unirep machine;
    struct ids words = {0};
    enum status st = STATUS_OK;
    unirep_init(&machine, model->vocabulary);
    for (int i = 0; i < event->n_ids && st == STATUS_OK; i++) {
        int32_t id = event->ids[i];
        bool outside = unirep_next(&machine) == UNIREP_TEXT;
        st = unirep_push(&machine, id, err);
        if (st == STATUS_OK && outside && unirep_next(&machine) == UNIREP_TEXT &&
            id != model->vocabulary->end_of_turn)
            st = ids_push(&words, id, err);
    }
    if (st == STATUS_OK)
        st = tokenizer_decode(model->tokenizer, words.ids, words.n, text, bytes, err);
    ids_fini(&words);
    return st;
}

static enum status write_picture(struct session *session, const struct settings *settings,
                                 const struct engine_event *event, struct error *err)
{
    struct picture_facts facts = {.prompt = settings->prompt,
                                  .prompt_bytes = settings->prompt ? strlen(settings->prompt) : 0};
    struct picture_size size;
    struct picture *rgb = NULL;
    struct ids codes = {0};
    settings_sampling(&facts.sampling, settings, &session->model->settings);
    if (event->rgb) {
        struct picture view = {event->width, event->height, 3, event->rgb};
        return picture_output_write_file(settings->out, &view, session->model, &facts, err);
    }
    enum status st = unirep_parse(session->model->vocabulary, event->ids, (size_t)event->n_ids,
                                  &size, &codes, NULL, err);
    if (st == STATUS_OK)
        st = engine_client_decode(&session->client, size, &codes, &rgb, err);
    if (st == STATUS_OK)
        st = picture_output_write_file(settings->out, rgb, session->model, &facts, err);
    picture_destroy(rgb);
    ids_fini(&codes);
    return st;
}

static void stage_memory_json(json_t *out, const struct engine_stage_stats *stage)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } parts[] = {{"bytes", stage->weight_bytes},
                 {"file_bytes", stage->file_bytes},
                 {"kv_bytes", stage->kv_bytes},
                 {"activation_bytes", stage->activation_bytes},
                 {"workspace_bytes", stage->workspace_bytes},
                 {"recording_bytes", stage->recording_bytes},
                 {"device_bytes", stage->device_bytes},
                 {"device_free_bytes", stage->device_free_bytes},
                 {"device_total_bytes", stage->device_total_bytes},
                 {"resident_bytes", stage->resident_bytes}};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        json_object_set_new(out, parts[i].name, json_integer((json_int_t)parts[i].bytes));
}

static json_t *stages_json(const struct engine_stats *stats)
{
    json_t *list = json_array();
    for (int i = 0; i < stats->n_stages; i++) {
        const struct engine_stage_stats *stage = &stats->stages[i];
        json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:f, s:f, s:s, s:s}", "pid",
                                              stage->pid, "units", stage->units, "link",
                                              stage->link, "busy_s", (double)stage->busy_ns * 1e-9,
                                              "wait_s", (double)stage->wait_ns * 1e-9, "digest",
                                              stage->digest, "fingerprint", stage->fingerprint));
        stage_memory_json(json_array_get(list, (size_t)i), stage);
    }
    return list;
}

static enum status answer(struct session *session, const struct settings *settings,
                          const struct ids *prompt, const struct engine_event *event,
                          struct error *err)
{
    struct engine_stats *stats = engine_stats(session->engine);
    char *text = NULL;
    size_t bytes;
    if (!stats)
        return error_set(err, STATUS_NOMEM, "cannot allocate the answer");
    json_t *root = json_pack("{s:o*, s:o*, s:i, s:o*, s:f}", "prompt_ids",
                             session_ids_json(prompt->ids, prompt->n), "ids",
                             session_ids_json(event->ids, (size_t)event->n_ids), "passes",
                             event->n_passes, "stages", stages_json(stats), "seconds",
                             (double)(event->now_ms - event->submitted_ms) * 1e-3);
    free(stats);
    enum status st = STATUS_OK;
    if (root && settings->size.width == 0) {
        st = read_text(session->model, event, &text, &bytes, err);
        if (st == STATUS_OK)
            json_object_set_new(root, "text", json_stringn(text, bytes));
        free(text);
    }
    if (st == STATUS_OK)
        return session_print_json(root, err);
    json_decref(root);
    return st;
}

static enum status generate(struct session *session, const struct settings *settings,
                            struct error *err)
{
    struct ids prompt = {0};
    struct engine_event *event = NULL;
    enum status st = served_model_open(&session->model, settings->model, SERVED_ALL, err);
    if (st == STATUS_OK)
        st = build_prompt(session, settings, &prompt, err);
    if (st == STATUS_OK)
        st = run(session, settings, &prompt, &event, err);
    if (st == STATUS_OK && settings->out)
        st = write_picture(session, settings, event, err);
    if (st == STATUS_OK)
        st = answer(session, settings, &prompt, event, err);
    mail_destroy(event ? &event->mail : NULL);
    ids_fini(&prompt);
    return st;
}

int command_inspect_generate(int argc, char **argv)
{
    static const struct option table[] = {
        ROW_MODEL,
        {"prompt", "TEXT", OPTION_TEXT, SETTING(prompt),
         .help = "what the picture shows; without --size a question"},
        {"conversation", "FILE", OPTION_TEXT, SETTING(conversation),
         .help = "instead of --prompt, as for inspect prompt"},
        {"size", "WxH", OPTION_SIZE, SETTING(size),
         .help = "one picture of this size; without it, text until the end of turn"},
        {"max-tokens", "N", OPTION_INT, SETTING(max_tokens), .min = 1, .max = 1 << 20,
         .help = "of an answer without --size [8192]"},
        {"out", "FILE.png", OPTION_TEXT, SETTING(out), .letter = 'o',
         .help = "writes the (first) picture"},
        ROWS_SAMPLING,
        {"compute", "TYPE", OPTION_CHOICE, SETTING(compute), .choices = settings_computes,
         .default_value = "bf16", .help = "number format", .heading = "Model and processes"},
        ROWS_STAGES,
        ROW_TARGET,
        ROW_VQ,
        ROW_CHUNK,
        ROW_KV_BLOCKS("what the request needs"),
        ROW_DEVICE,
        ROW_LINK,
        ROW_THREADS,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect generate",
        .about = "One answer as token ids: {\"prompt_ids\", \"ids\", \"text\" (without --size), "
                 "\"passes\", \"stages\"}.",
        .options = table,
        .example = "mgpt inspect generate --model ./7b --prompt 'a red fox' --size 768x768 --seed "
                   "7 -o fox.png"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    if (!settings.prompt == !settings.conversation) {
        fprintf(stderr, "mgpt inspect generate: expected either --prompt or --conversation\n");
        return 2;
    }
    return session_finish(&session, generate(&session, &settings, &err), &err);
}
