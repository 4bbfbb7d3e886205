/*
 * model_vocabulary.c - tokenizer.json is read, asked for its names, and given back.
 */
#include "worker/model_vocabulary.h"

#include <limits.h>
#include <stdio.h>

#include "model/tokenizer.h"

enum status model_vocabulary_load(struct vocabulary **out, const char *model_dir, struct error *err)
{
    *out = NULL;
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/tokenizer.json", model_dir) >= (int)sizeof(path))
        return error_set(err, STATUS_INVALID, "the path '%s' is too long", model_dir);
    struct tokenizer *tokenizer;
    enum status st = tokenizer_open(&tokenizer, path, err);
    if (st == STATUS_OK)
        st = vocabulary_create(out, tokenizer, err);
    tokenizer_destroy(tokenizer);
    return st;
}
