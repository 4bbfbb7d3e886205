/*
 * inspect_picture.c - `mgpt inspect encode | decode`: pixels to tokens and back, by a codec worker.
 */
#include <stdio.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"
#include "daemon/picture_input.h"
#include "model/picture_file.h"
#include "model/unirep.h"

static enum status start_codec(struct session *session, const struct settings *settings, int width,
                               int height, struct error *err)
{
    struct engine_options options;
    settings_engine(&options, settings, session->model);
    options.codec = true;
    options.picture_pixels = session_pixels(width, height);
    return session_start(session, &options, err);
}

static enum status write_png(const char *path, const struct picture *picture, struct error *err)
{
    struct picture_write_options options = {.format = PICTURE_PNG};
    return picture_write_file(path, picture, &options, err);
}

static enum status encode(struct session *session, const struct settings *settings,
                          struct error *err)
{
    struct picture *rgb = NULL;
    struct ids codes = {0}, tokens = {0};
    enum status st = served_model_open(&session->model, settings->model, SERVED_TOKENIZER, err);
    if (st == STATUS_OK)
        st = picture_input_read(&rgb, settings->image,
                                settings_target(settings, &session->model->settings), err);
    if (st == STATUS_OK && settings->crop)
        st = write_png(settings->crop, rgb, err);
    if (st == STATUS_OK)
        st = start_codec(session, settings, rgb->width, rgb->height, err);
    if (st == STATUS_OK)
        st = picture_input_tokens(&session->client, session->model->vocabulary, rgb, &codes,
                                  &tokens, err);
    if (st == STATUS_OK)
        st = session_print_json(json_pack("{s:[ii], s:o*, s:o*}", "size", rgb->width, rgb->height,
                                          "codes", session_ids_json(codes.ids, codes.n), "ids",
                                          session_ids_json(tokens.ids, tokens.n)),
                                err);
    picture_destroy(rgb);
    ids_fini(&codes);
    ids_fini(&tokens);
    return st;
}

int command_inspect_encode(int argc, char **argv)
{
    static const struct option table[] = {
        ROW_MODEL,
        {"image", "FILE", OPTION_TEXT, SETTING(image), .required = true,
         .help = "PNG, JPEG or WebP"},
        ROW_TARGET,
        {"crop", "FILE.png", OPTION_TEXT, SETTING(crop), .help = "writes what is encoded"},
        ROW_VQ,
        ROW_DEVICE,
        ROW_THREADS,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect encode",
        .about = "A picture to its codes and tokens: {\"size\": [w, h], \"codes\": [...], \"ids\": "
                 "[...]}.",
        .options = table,
        .example = "mgpt inspect encode --model ./7b --image fox.jpg --target-size 768"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    return session_finish(&session, encode(&session, &settings, &err), &err);
}

static enum status decode(struct session *session, const struct settings *settings,
                          struct error *err)
{
    struct picture_size size;
    struct picture *rgb = NULL;
    struct ids ids = {0}, codes = {0};
    enum status st = session_read_ids(&ids, settings->ids, err);
    if (st == STATUS_OK)
        st = served_model_open(&session->model, settings->model, SERVED_TOKENIZER, err);
    if (st == STATUS_OK)
        st = unirep_parse(session->model->vocabulary, ids.ids, ids.n, &size, &codes, NULL, err);
    if (st == STATUS_OK)
        st = start_codec(session, settings, size.width, size.height, err);
    if (st == STATUS_OK)
        st = engine_client_decode(&session->client, size, &codes, &rgb, err);
    if (st == STATUS_OK)
        st = write_png(settings->out, rgb, err);
    picture_destroy(rgb);
    ids_fini(&ids);
    ids_fini(&codes);
    return st;
}

int command_inspect_decode(int argc, char **argv)
{
    static const struct option table[] = {
        ROW_MODEL,
        {"ids", "FILE", OPTION_TEXT, SETTING(ids), .required = true,
         .help = "JSON list of ids with a picture: <racm3:break>, height, width, codes, <eoss>"},
        {"out", "FILE.png", OPTION_TEXT, SETTING(out), .letter = 'o', .required = true,
         .help = "where the picture goes"},
        ROW_VQ,
        ROW_DEVICE,
        ROW_THREADS,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect decode",
        .about = "The first picture among token ids to a PNG file.",
        .options = table,
        .example = "mgpt inspect decode --model ./7b --ids picture.json -o fox.png"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    return session_finish(&session, decode(&session, &settings, &err), &err);
}
