/*
 * served_model.c - opens the files of a checkpoint folder that the daemon reads.
 */
#include "daemon/served_model.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/conversation.h"
#include "model/unirep.h"
#include "model/utf8.h"

enum { OPENING_TOKENS = 3 }; /* start, height, width: they stand in the prompt already */

static enum status open_tokenizer(struct served_model *model, struct error *err)
{
    size_t bytes = strlen(model->folder) + sizeof("/tokenizer.json");
    char *path = malloc(bytes);
    if (!path)
        return error_set(err, STATUS_NOMEM, "cannot allocate a path");
    snprintf(path, bytes, "%s/tokenizer.json", model->folder);
    enum status st = tokenizer_open(&model->tokenizer, path, err);
    if (st == STATUS_OK)
        st = vocabulary_create(&model->vocabulary, model->tokenizer, err);
    if (st != STATUS_OK && model->tokenizer)
        error_wrap(err, st, "'%s'", path);
    free(path);
    return st;
}

static enum status open_checkpoint(struct served_model *model, struct error *err)
{
    enum status st = checkpoint_open(&model->checkpoint, model->folder, err);
    if (st != STATUS_OK)
        return st;
    model->config = *checkpoint_config(model->checkpoint);
    if (model->vocabulary->n_ids > model->config.vocab)
        return error_set(err, STATUS_INVALID,
                         "'%s': tokenizer.json has ids up to %d, config.json has vocab_size %d",
                         model->folder, model->vocabulary->n_ids - 1, model->config.vocab);
    return STATUS_OK;
}

/* "checkpoints/7b/" is "7b"; what "." or a link stands for is looked up. What is no UTF-8 cannot
 * stand in an answer. */
static char *name_folder(const char *folder)
{
    char *path = realpath(folder, NULL);
    const char *slash = path ? strrchr(path, '/') : NULL;
    const char *last = slash ? slash + 1 : "";
    bool plain = *last && utf8_find_invalid(last, strlen(last)) == strlen(last);
    char *name = strdup(plain ? last : "model");
    free(path);
    return name;
}

enum status served_model_open(struct served_model **out, const char *folder,
                              enum served_model_parts parts, struct error *err)
{
    *out = NULL;
    struct served_model *model = calloc(1, sizeof(*model));
    if (model) {
        model->folder = strdup(folder);
        model->name = name_folder(folder);
    }
    if (!model || !model->folder || !model->name) {
        served_model_close(model);
        return error_set(err, STATUS_NOMEM, "cannot allocate a model");
    }
    enum status st = mgpt_settings_load(&model->settings, folder, err);
    if (st == STATUS_OK)
        st = open_tokenizer(model, err);
    if (st == STATUS_OK && parts == SERVED_ALL)
        st = open_checkpoint(model, err);
    if (st != STATUS_OK) {
        served_model_close(model);
        return st;
    }
    *out = model;
    return STATUS_OK;
}

void served_model_close(struct served_model *model)
{
    if (!model)
        return;
    checkpoint_close(model->checkpoint);
    vocabulary_destroy(model->vocabulary);
    tokenizer_destroy(model->tokenizer);
    free(model->folder);
    free(model->name);
    free(model);
}

enum status served_model_text_to_image(const struct served_model *model, const char *prompt,
                                       size_t prompt_bytes, struct picture_size size,
                                       struct ids *out, struct error *err)
{
    struct conversation *conversation;
    enum status st = unirep_check_size(model->vocabulary, size, err);
    if (st != STATUS_OK)
        return st;
    st = conversation_create(&conversation, err);
    if (st != STATUS_OK)
        return st;
    st = conversation_add_text_to_image(conversation, prompt, prompt_bytes, size, err);
    if (st == STATUS_OK)
        st = conversation_encode(conversation, model->tokenizer, model->vocabulary, NULL, 0, out,
                                 err);
    if (st == STATUS_OK)
        st = unirep_build_opening(model->vocabulary, size, out, err);
    conversation_destroy(conversation);
    return st;
}

enum status served_model_check_length(const struct served_model *model, size_t n_prompt,
                                      struct picture_size size, struct error *err)
{
    int64_t positions = (int64_t)n_prompt + unirep_length(size) - OPENING_TOKENS;
    if (positions <= model->config.max_positions)
        return STATUS_OK;
    return error_set(err, STATUS_UNSUPPORTED,
                     "a picture of %dx%d after this prompt takes %lld positions, the model has %d",
                     size.width, size.height, (long long)positions, model->config.max_positions);
}
