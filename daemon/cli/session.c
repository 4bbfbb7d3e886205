/*
 * session.c - input, output and the engine of one command.
 */
#include "daemon/cli/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/settings.h"
#include "daemon/picture_input.h"
#include "model/file_bytes.h"
#include "model/json_fields.h"
#include "proto/plan.h"

enum status session_start(struct session *session, const struct engine_options *options,
                          struct error *err)
{
    enum status st = engine_create(&session->engine, options, err);
    if (st == STATUS_OK)
        st = engine_wait_ready(session->engine, SESSION_READY_WAIT_MS, err);
    if (st == STATUS_OK)
        st = engine_client_init(&session->client, session->engine, err);
    session->client.wants_more = command_goes_on;
    return st;
}

int session_pixels(int width, int height)
{
    int64_t pixels = (int64_t)width * height;
    return pixels < PLAN_PICTURE_PIXELS_MAX ? (int)pixels : PLAN_PICTURE_PIXELS_MAX;
}

void session_end(struct session *session)
{
    engine_client_fini(&session->client);
    engine_destroy(session->engine);
    served_model_close(session->model);
    memset(session, 0, sizeof(*session));
}

int session_finish(struct session *session, enum status status, const struct error *err)
{
    session_end(session);
    if (status == STATUS_OK)
        return 0;
    fprintf(stderr, "mgpt: %s\n", err->text);
    return 1;
}

enum status session_read_stdin(char **text, size_t *bytes, struct error *err)
{
    size_t capacity = 1 << 16;
    size_t used = 0;
    size_t n;
    char *buffer = malloc(capacity);
    while (buffer && (n = fread(buffer + used, 1, capacity - used - 1, stdin)) > 0) {
        used += n;
        if (used > SESSION_INPUT_BYTES_MAX) {
            free(buffer);
            return error_set(err, STATUS_INVALID, "more than %d bytes on stdin",
                             SESSION_INPUT_BYTES_MAX);
        }
        if (capacity - used > 1)
            continue;
        char *more = realloc(buffer, capacity *= 2);
        if (!more)
            free(buffer);
        buffer = more;
    }
    if (!buffer)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes for stdin", capacity);
    buffer[used] = 0;
    *text = buffer;
    *bytes = used;
    return STATUS_OK;
}

enum status session_parse_ids(struct ids *out, const char *text, size_t bytes, const char *name,
                              struct error *err)
{
    json_t *root;
    char found[JSON_FIELDS_TEXT_BYTES];
    enum status st = json_fields_load(&root, text, bytes, name, err);
    if (st != STATUS_OK)
        return st;
    json_t *list = json_is_object(root) ? json_object_get(root, "ids") : root;
    if (!json_is_array(list) || json_array_size(list) > SESSION_IDS_MAX)
        st = error_set(err, STATUS_INVALID, "'%s' has %s, expected an array of at most %d ids",
                       name, json_fields_describe(found, list), SESSION_IDS_MAX);
    size_t i;
    json_t *item;
    if (st == STATUS_OK)
        json_array_foreach(list, i, item)
        {
            if (!json_is_integer(item) || json_integer_value(item) < 0 ||
                json_integer_value(item) > INT32_MAX)
                st = error_set(err, STATUS_INVALID,
                               "'%s': item %zu is %s, expected a token id from 0 to %d", name, i,
                               json_fields_describe(found, item), INT32_MAX);
            else
                st = ids_push(out, (int32_t)json_integer_value(item), err);
            if (st != STATUS_OK)
                break;
        }
    json_decref(root);
    return st;
}

enum status session_read_ids(struct ids *out, const char *path, struct error *err)
{
    unsigned char *text;
    size_t bytes;
    enum status st = file_bytes_read(&text, &bytes, path, SESSION_INPUT_BYTES_MAX, err);
    if (st != STATUS_OK)
        return st;
    st = session_parse_ids(out, (const char *)text, bytes, path, err);
    free(text);
    return st;
}

json_t *session_ids_json(const int32_t *ids, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        if (json_array_append_new(list, json_integer(ids[i])) == 0)
            continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

enum status session_print_json(json_t *value, struct error *err)
{
    enum status st = STATUS_OK;
    if (!value)
        return error_set(err, STATUS_NOMEM,
                         "cannot make the answer: no memory, or a name in it that is no UTF-8");
    if (json_dumpf(value, stdout, JSON_ENCODE_ANY) != 0 || fputc('\n', stdout) == EOF ||
        fflush(stdout) != 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot write to stdout");
    json_decref(value);
    return st;
}

static enum status read_conversation(struct conversation **out, const char *path, struct error *err)
{
    unsigned char *json;
    size_t bytes;
    enum status st = file_bytes_read(&json, &bytes, path, CONVERSATION_TEXT_BYTES_MAX, err);
    if (st != STATUS_OK)
        return st;
    st = conversation_parse(out, json, bytes, path, err);
    free(json);
    return st;
}

enum status session_conversation_prompt(struct session *session, const struct settings *settings,
                                        struct ids *out, struct error *err)
{
    struct conversation *conversation = NULL;
    struct engine_client *client = session->engine ? &session->client : NULL;
    int target = settings_target(settings, &session->model->settings);
    enum status st = read_conversation(&conversation, settings->conversation, err);
    if (st == STATUS_OK && !client && conversation_n_pictures(conversation) > 0) {
        struct engine_options options;
        settings_engine(&options, settings, session->model);
        options.codec = true;
        options.picture_pixels = session_pixels(target, target);
        st = session_start(session, &options, err);
        client = &session->client;
    }
    if (st == STATUS_OK)
        st = picture_input_prompt(client, session->model, conversation, target, out, err);
    conversation_destroy(conversation);
    return st;
}
