/*
 * token_sets.c - masks made once from the vocabulary.
 */
#include "worker/token_sets.h"

#include <limits.h>
#include <stdlib.h>

static enum status upload_mask(uint8_t **out, const uint8_t *mask, int n, struct stream *stream,
                               struct error *err)
{
    enum status st = stream_alloc(stream, (void **)out, (size_t)n, err);
    if (st == STATUS_OK)
        stream_upload(stream, *out, mask, (size_t)n);
    return st;
}

enum status token_sets_init(struct token_sets *sets, const struct vocabulary *vocabulary, int vocab,
                            struct stream *stream, struct error *err)
{
    *sets = (struct token_sets){.stream = stream,
                                .vocab = vocab,
                                .codes_first = vocabulary->code_id_min,
                                .codes_n = vocabulary->code_id_max - vocabulary->code_id_min + 1};
    if (vocabulary->code_id_max >= vocab)
        return error_set(
            err, STATUS_INVALID,
            "tokenizer.json has the picture code id %d, config.json's vocab_size is %d",
            vocabulary->code_id_max, vocab);
    uint8_t *mask = calloc((size_t)vocab, 1);
    if (!mask)
        return error_set(err, STATUS_NOMEM, "cannot allocate a mask of %d ids", vocab);
    for (int id = 0; id < vocab; id++)
        mask[id] = id < vocabulary->n_ids && vocabulary_code(vocabulary, id) < 0;
    enum status st = upload_mask(&sets->text_mask, mask, vocab, stream, err);
    for (int i = 0; i < sets->codes_n; i++)
        mask[i] = vocabulary_code(vocabulary, sets->codes_first + i) >= 0;
    if (st == STATUS_OK)
        st = upload_mask(&sets->codes_mask, mask, sets->codes_n, stream, err);
    free(mask);
    if (st != STATUS_OK)
        token_sets_fini(sets);
    return st;
}

void token_sets_fini(struct token_sets *sets)
{
    if (!sets->stream)
        return;
    stream_free(sets->stream, sets->codes_mask, (size_t)sets->codes_n);
    stream_free(sets->stream, sets->text_mask, (size_t)sets->vocab);
    *sets = (struct token_sets){0};
}

void token_sets_range(const struct token_sets *sets, const Mgpt__Output *output, int *first, int *n)
{
    *first = 0;
    *n = sets->vocab;
    if (output->kind != MGPT__OUTPUT_KIND__OUTPUT_DRAW)
        return;
    if (output->set == MGPT__TOKEN_SET__SET_CODES) {
        *first = sets->codes_first;
        *n = sets->codes_n;
    } else if (output->set == MGPT__TOKEN_SET__SET_LISTED && !sets->is_list_whole) {
        *first = (int)output->allowed[0];
        *n = (int)(output->allowed[output->n_allowed - 1] - output->allowed[0]) + 1;
    }
}

void token_sets_request(const struct token_sets *sets, const Mgpt__Output *output,
                        const Mgpt__Sampling *sampling, struct sample_request *out)
{
    bool is_text = output->set == MGPT__TOKEN_SET__SET_TEXT;
    uint32_t top_k = is_text ? sampling->text_top_k : sampling->image_top_k;
    *out = (struct sample_request){.guidance = sampling->guidance,
                                   .temperature = sampling->temperature,
                                   .top_k = top_k > INT_MAX ? 0 : (int)top_k,
                                   .seed = sampling->seed,
                                   .ordinal = output->ordinal,
                                   .picture_index = sampling->picture_index};
    token_sets_range(sets, output, &out->first_id, &out->n);
    if (is_text) {
        out->allowed = sets->text_mask;
        out->forbidden = (const int32_t *)output->forbidden; /* ascending, as plan_check() saw */
        out->n_forbidden = (int)output->n_forbidden;
    } else if (output->set == MGPT__TOKEN_SET__SET_CODES) {
        out->allowed = sets->codes_mask;
    } else {
        out->listed = (const int32_t *)output->allowed; /* checked to be below vocab */
        out->n_listed = (int)output->n_allowed;
    }
}
