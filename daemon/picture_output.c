/*
 * picture_output.c - two texts, then the file.
 */
#include "daemon/picture_output.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 512 };

/* PROMPT\nCFG scale: 4, Seed: 7, Size: 768x768, Model: 7b, ... */
static char *parameters_text(const struct picture *rgb, const struct served_model *model,
                             const struct picture_facts *facts)
{
    const struct plan_sampling *sampling = &facts->sampling;
    size_t prompt_bytes = facts->prompt ? facts->prompt_bytes : 0;
    char line[LINE_BYTES];
    int length = snprintf(
        line, sizeof(line),
        "CFG scale: %g, Seed: %llu, Size: %dx%d, Model: %.200s, Temperature: %g, Image top-k: %d, "
        "Picture index: %u",
        (double)sampling->guidance, (unsigned long long)sampling->seed, rgb->width, rgb->height,
        model->name, (double)sampling->temperature, sampling->image_top_k, sampling->picture_index);
    char *text = malloc(prompt_bytes + (size_t)length + 2);
    if (!text)
        return NULL;
    for (size_t i = 0; i < prompt_bytes; i++)
        text[i] = facts->prompt[i] ? facts->prompt[i] : ' '; /* a NUL would end the chunk */
    if (prompt_bytes > 0)
        text[prompt_bytes++] = '\n';
    memcpy(text + prompt_bytes, line, (size_t)length + 1);
    return text;
}

/* JSON's numbers here are signed: a larger seed is a text. */
static json_t *seed_json(uint64_t seed)
{
    return seed <= INT64_MAX ? json_integer((json_int_t)seed)
                             : json_sprintf("%llu", (unsigned long long)seed);
}

static char *json_text(const struct picture *rgb, const struct served_model *model,
                       const struct picture_facts *facts)
{
    const struct plan_sampling *sampling = &facts->sampling;
    json_t *root = json_pack("{s:s, s:o, s:i, s:[ii], s:f, s:f, s:i}", "model", model->name, "seed",
                             seed_json(sampling->seed), "picture_index",
                             (int)sampling->picture_index, "size", rgb->width, rgb->height,
                             "guidance_scale", (double)sampling->guidance, "temperature",
                             (double)sampling->temperature, "image_top_k", sampling->image_top_k);
    if (root && facts->prompt)
        json_object_set_new(root, "prompt", json_stringn(facts->prompt, facts->prompt_bytes));
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    return text;
}

/* Both texts, freed by end_texts(). */
static enum status make_texts(struct picture_text texts[2], const struct picture *rgb,
                              const struct served_model *model, const struct picture_facts *facts,
                              struct error *err)
{
    texts[0] = (struct picture_text){"parameters", parameters_text(rgb, model, facts)};
    texts[1] = (struct picture_text){"mgpt", json_text(rgb, model, facts)};
    if (texts[0].value && texts[1].value)
        return STATUS_OK;
    return error_set(err, STATUS_NOMEM, "cannot allocate the texts of a picture");
}

static void end_texts(struct picture_text texts[2])
{
    free((char *)(uintptr_t)texts[0].value);
    free((char *)(uintptr_t)texts[1].value);
}

enum status picture_output_write(uint8_t **bytes, size_t *n_bytes, const struct picture *rgb,
                                 enum picture_format format, int quality,
                                 const struct served_model *model,
                                 const struct picture_facts *facts, struct error *err)
{
    struct picture_text texts[2];
    struct picture_write_options options = {
        .format = format, .quality = quality, .texts = texts, .n_texts = 2};
    enum status st = make_texts(texts, rgb, model, facts, err);
    if (st == STATUS_OK)
        st = picture_write(bytes, n_bytes, rgb, &options, err);
    end_texts(texts);
    return st;
}

enum status picture_output_write_file(const char *path, const struct picture *rgb,
                                      const struct served_model *model,
                                      const struct picture_facts *facts, struct error *err)
{
    int format = picture_parse_format(path);
    struct picture_text texts[2];
    struct picture_write_options options = {.format = format < 0 ? PICTURE_PNG
                                                                 : (enum picture_format)format,
                                            .texts = texts,
                                            .n_texts = 2};
    enum status st = make_texts(texts, rgb, model, facts, err);
    if (st == STATUS_OK)
        st = picture_write_file(path, rgb, &options, err);
    end_texts(texts);
    return st;
}
