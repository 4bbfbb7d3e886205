/*
 * inspect_text.c - `mgpt inspect tokenize | detokenize | prompt | sizes`: text to ids and back.
 */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"

int command_inspect_tokenize(int argc, char **argv)
{
    static const struct option table[] = {ROW_MODEL, {0}};
    static const struct option_set set = {
        .program = "mgpt inspect tokenize",
        .about = "Text on stdin to token ids; the file's added tokens are recognised.",
        .options = table,
        .example = "echo -n 'a red fox' | mgpt inspect tokenize --model ./7b"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    struct ids ids = {0};
    char *text = NULL;
    size_t bytes;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    enum status st = served_model_open(&session.model, settings.model, SERVED_TOKENIZER, &err);
    if (st == STATUS_OK)
        st = session_read_stdin(&text, &bytes, &err);
    if (st == STATUS_OK)
        st = tokenizer_encode(session.model->tokenizer, text, bytes, TOKENIZER_ADDED, &ids, &err);
    if (st == STATUS_OK)
        st = session_print_json(session_ids_json(ids.ids, ids.n), &err);
    free(text);
    ids_fini(&ids);
    return session_finish(&session, st, &err);
}

int command_inspect_detokenize(int argc, char **argv)
{
    static const struct option table[] = {ROW_MODEL, {0}};
    static const struct option_set set = {
        .program = "mgpt inspect detokenize",
        .about = "Token ids on stdin (a JSON list) to text.",
        .options = table,
        .example = "echo '[9258, 10195]' | mgpt inspect detokenize --model ./7b"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    struct ids ids = {0};
    char *input = NULL, *text = NULL;
    size_t bytes;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    enum status st = served_model_open(&session.model, settings.model, SERVED_TOKENIZER, &err);
    if (st == STATUS_OK)
        st = session_read_stdin(&input, &bytes, &err);
    if (st == STATUS_OK)
        st = session_parse_ids(&ids, input, bytes, "stdin", &err);
    if (st == STATUS_OK)
        st = tokenizer_decode(session.model->tokenizer, ids.ids, ids.n, &text, &bytes, &err);
    if (st == STATUS_OK && (fwrite(text, 1, bytes, stdout) != bytes || fflush(stdout) != 0))
        st = error_set(&err, STATUS_IO, "cannot write to stdout");
    free(input);
    free(text);
    ids_fini(&ids);
    return session_finish(&session, st, &err);
}

int command_inspect_prompt(int argc, char **argv)
{
    static const struct option table[] = {
        ROW_MODEL,
        {"conversation", "FILE", OPTION_TEXT, SETTING(conversation), .required = true,
         .help = "JSON: {\"images\": [file, ...], \"qas\": [[question, answer or null], ...]}"},
        ROW_TARGET,
        ROW_VQ,
        ROW_DEVICE,
        ROW_THREADS,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect prompt",
        .about = "A conversation to the token ids of its prompt.",
        .options = table,
        .example = "mgpt inspect prompt --model ./7b --conversation talk.json"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    struct ids ids = {0};
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    enum status st = served_model_open(&session.model, settings.model, SERVED_TOKENIZER, &err);
    if (st == STATUS_OK)
        st = session_conversation_prompt(&session, &settings, &ids, &err);
    if (st == STATUS_OK)
        st = session_print_json(session_ids_json(ids.ids, ids.n), &err);
    ids_fini(&ids);
    return session_finish(&session, st, &err);
}

int command_inspect_sizes(int argc, char **argv)
{
    static const struct option table[] = {{"target-size", "T", OPTION_INT, SETTING(target_size),
                                           .required = true, .min = 32, .max = SIZES_TARGET_MAX,
                                           .help = "a multiple of 32"},
                                          {0}};
    static const struct option_set set = {
        .program = "mgpt inspect sizes",
        .about = "The picture sizes of a target as [[width, height], ...].",
        .options = table,
        .example = "mgpt inspect sizes --target-size 768"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    struct sizes sizes = {0};
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    enum status st = sizes_init(&sizes, settings.target_size, &err);
    if (st == STATUS_OK) {
        json_t *list = json_array();
        for (int i = 0; i < sizes.n; i++)
            json_array_append_new(list,
                                  json_pack("[ii]", sizes.list[i].width, sizes.list[i].height));
        st = session_print_json(list, &err);
    }
    sizes_fini(&sizes);
    return session_finish(&session, st, &err);
}
