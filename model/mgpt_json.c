/*
 * mgpt_json.c - our own file: small, and strict, so that a misspelt key is not silently a default.
 */
#include "model/mgpt_json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/file_bytes.h"
#include "model/json_fields.h"

enum { SIZE_STEP = 32, TOP_K_MAX = 1 << 20 };

void mgpt_settings_init(struct mgpt_settings *out)
{
    *out = (struct mgpt_settings){.target_size = 768,
                                  .default_width = 768,
                                  .default_height = 768,
                                  .temperature = 1.0,
                                  .guidance_scale = 4.0,
                                  .image_top_k = 2000,
                                  .text_top_k = 10};
}

static enum status check_keys(const struct json_fields *fields, const char *const *known,
                              size_t n_known, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)fields->object, key, value)
    {
        size_t i = 0;
        while (i < n_known && strcmp(known[i], key) != 0)
            i++;
        if (i == n_known)
            return error_set(err, STATUS_INVALID, "'%s': '%s%.60s' is no key of this file",
                             fields->name, fields->path, key);
    }
    return STATUS_OK;
}

static enum status take_default_size(struct mgpt_settings *out, const struct json_fields *fields,
                                     struct error *err)
{
    const char *text = NULL;
    enum status st = json_fields_text(fields, "default_size", false, &text, err);
    out->default_width = out->default_height = out->target_size;
    if (st != STATUS_OK || !text)
        return st;
    int width = 0, height = 0, end = 0;
    bool parsed = strlen(text) < 16 && sscanf(text, "%5dx%5d%n", &width, &height, &end) == 2 &&
                  text[end] == 0;
    if (!parsed || width < SIZE_STEP || height < SIZE_STEP || width > MGPT_TARGET_SIZE_MAX ||
        height > MGPT_TARGET_SIZE_MAX || width % SIZE_STEP || height % SIZE_STEP)
        return error_set(
            err, STATUS_INVALID,
            "'%s': 'default_size' is '%.30s', expected WIDTHxHEIGHT in multiples of %d up to %d",
            fields->name, text, SIZE_STEP, MGPT_TARGET_SIZE_MAX);
    out->default_width = width;
    out->default_height = height;
    return STATUS_OK;
}

static enum status take_sampling(struct mgpt_settings *out, const struct json_fields *fields,
                                 struct error *err)
{
    static const char *const known[] = {"temperature", "guidance_scale", "image_top_k",
                                        "text_top_k"};
    const json_t *object;
    enum status st = json_fields_object(fields, "sampling", false, &object, err);
    if (st != STATUS_OK || !object)
        return st;
    struct json_fields sampling = {object, fields->name, "sampling."};
    st = check_keys(&sampling, known, sizeof(known) / sizeof(known[0]), err);
    if (st == STATUS_OK)
        st = json_fields_real(&sampling, "temperature", false, 0, 100, &out->temperature, err);
    if (st == STATUS_OK)
        st =
            json_fields_real(&sampling, "guidance_scale", false, 0, 100, &out->guidance_scale, err);
    if (st == STATUS_OK)
        st = json_fields_int(&sampling, "image_top_k", false, 0, TOP_K_MAX, &out->image_top_k, err);
    if (st == STATUS_OK)
        st = json_fields_int(&sampling, "text_top_k", false, 0, TOP_K_MAX, &out->text_top_k, err);
    return st;
}

enum status mgpt_settings_parse(struct mgpt_settings *out, const void *text, size_t bytes,
                                const char *name, struct error *err)
{
    static const char *const known[] = {"target_size", "default_size", "sampling"};
    mgpt_settings_init(out);
    if (bytes > MGPT_JSON_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         bytes, MGPT_JSON_BYTES_MAX);
    json_t *root;
    enum status st = json_fields_parse(&root, text, bytes, name, err);
    if (st != STATUS_OK)
        return st;
    struct json_fields fields = {root, name, ""};
    st = check_keys(&fields, known, sizeof(known) / sizeof(known[0]), err);
    if (st == STATUS_OK)
        st = json_fields_int(&fields, "target_size", false, SIZE_STEP, MGPT_TARGET_SIZE_MAX,
                             &out->target_size, err);
    if (st == STATUS_OK && out->target_size % SIZE_STEP != 0)
        st = error_set(err, STATUS_INVALID, "'%s': 'target_size' is %d, expected a multiple of %d",
                       name, out->target_size, SIZE_STEP);
    if (st == STATUS_OK)
        st = take_default_size(out, &fields, err);
    if (st == STATUS_OK)
        st = take_sampling(out, &fields, err);
    json_decref(root);
    return st;
}

enum status mgpt_settings_load(struct mgpt_settings *out, const char *folder, struct error *err)
{
    unsigned char *text = NULL;
    size_t bytes;
    char *path;
    mgpt_settings_init(out);
    if (asprintf(&path, "%s/mgpt.json", folder) < 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate the path of mgpt.json in '%s'",
                         folder);
    struct stat info;
    enum status st = STATUS_OK;
    /* A link that leads nowhere is there: opening it says what is wrong. */
    if (lstat(path, &info) == 0 || errno != ENOENT) {
        st = file_bytes_read(&text, &bytes, path, MGPT_JSON_BYTES_MAX, err);
        if (st == STATUS_OK)
            st = mgpt_settings_parse(out, text, bytes, path, err);
    }
    free(text);
    free(path);
    return st;
}
