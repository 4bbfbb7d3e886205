/*
 * picture_input.c - read, cut, encode, place.
 */
#include "daemon/picture_input.h"

#include <stdlib.h>

#include "model/crop.h"
#include "model/picture_file.h"
#include "model/unirep.h"

enum status picture_input_read(struct picture **out, const char *path, int target,
                               struct error *err)
{
    struct sizes sizes = {0};
    struct picture *whole = NULL;
    *out = NULL;
    enum status st = sizes_init(&sizes, target, err);
    if (st == STATUS_OK)
        st = picture_read_file(&whole, path, NULL, err);
    if (st == STATUS_OK)
        st = crop_to_sizes(out, whole, &sizes, err);
    picture_destroy(whole);
    sizes_fini(&sizes);
    return st;
}

enum status picture_input_tokens(struct engine_client *client, const struct vocabulary *vocabulary,
                                 const struct picture *rgb, struct ids *codes, struct ids *tokens,
                                 struct error *err)
{
    struct ids own = {0};
    struct picture_size size = {rgb->width, rgb->height};
    enum status st = engine_client_encode(client, rgb, &own, err);
    if (st == STATUS_OK)
        st = unirep_build(vocabulary, size, own.ids, tokens, err);
    if (st == STATUS_OK && codes)
        st = ids_append(codes, own.ids, own.n, err);
    ids_fini(&own);
    return st;
}

static enum status encode_file(struct engine_client *client, const struct served_model *model,
                               const char *path, int target, struct ids *tokens, struct error *err)
{
    struct picture *rgb;
    if (!client)
        return error_set(err, STATUS_UNSUPPORTED, "no picture worker for '%s'", path);
    enum status st = picture_input_read(&rgb, path, target, err);
    if (st == STATUS_OK)
        st = picture_input_tokens(client, model->vocabulary, rgb, NULL, tokens, err);
    picture_destroy(rgb);
    return st;
}

enum status picture_input_prompt(struct engine_client *client, const struct served_model *model,
                                 const struct conversation *conversation, int target,
                                 struct ids *out, struct error *err)
{
    int n = conversation_n_pictures(conversation);
    struct ids *pictures = calloc((size_t)n + 1, sizeof(*pictures));
    enum status st = STATUS_OK;
    if (!pictures)
        return error_set(err, STATUS_NOMEM, "cannot allocate the tokens of %d pictures", n);
    for (int i = 0; i < n && st == STATUS_OK; i++) {
        const char *path = conversation_picture_file(conversation, i);
        if (!path)
            st = error_set(err, STATUS_INVALID, "picture %d of the conversation has no file", i);
        else
            st = encode_file(client, model, path, target, &pictures[i], err);
    }
    if (st == STATUS_OK)
        st = conversation_encode(conversation, model->tokenizer, model->vocabulary, pictures, n,
                                 out, err);
    for (int i = 0; i < n; i++)
        ids_fini(&pictures[i]);
    free(pictures);
    return st;
}
