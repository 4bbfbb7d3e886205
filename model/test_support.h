/*
 * test_support.h - what the tests of this folder share: golden files and small tokenizers. Include
 * after cmocka.h.
 */
#ifndef MGPT_MODEL_TEST_SUPPORT_H
#define MGPT_MODEL_TEST_SUPPORT_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ids.h"
#include "model/tokenizer.h"

#define GOLDEN MGPT_SOURCE_DIR "/tests/golden/"

static const char *const golden_models[] = {"v7b", "v34b"};
enum { N_GOLDEN_MODELS = 2, TEST_PATH_BYTES = 256 };

/* "<golden>/<first><second>" in static storage: good until the next call. */
static inline const char *golden_path(const char *first, const char *second)
{
    static char path[8 * TEST_PATH_BYTES];
    snprintf(path, sizeof(path), GOLDEN "%s%s", first, second);
    return path;
}

static inline json_t *load_json(const char *path)
{
    json_error_t wrong;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &wrong);
    if (!root)
        fail_msg("%s: %s", path, wrong.text);
    return root;
}

static inline struct tokenizer *tokenizer_of_model(const char *model)
{
    struct error err = {0};
    struct tokenizer *tokenizer;
    if (tokenizer_open(&tokenizer, golden_path(model, "/model/tokenizer.json"), &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

/* NULL and *err when the file is refused. */
static inline struct tokenizer *tokenizer_of_json(const json_t *spec, struct error *err)
{
    char *text = json_dumps(spec, 0);
    struct tokenizer *tokenizer;
    tokenizer_create(&tokenizer, text, strlen(text), "tokenizer.json", err);
    free(text);
    return tokenizer;
}

static inline bool ids_equal_json(const struct ids *ids, const json_t *expected)
{
    if (ids->n != json_array_size(expected))
        return false;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] != json_integer_value(json_array_get(expected, i)))
            return false;
    return true;
}

/* A list of integers as ids; the caller ends it with ids_fini(). */
static inline struct ids ids_of_json(const json_t *list)
{
    struct ids ids = {0};
    for (size_t i = 0; i < json_array_size(list); i++)
        ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i)), NULL);
    return ids;
}

#endif
