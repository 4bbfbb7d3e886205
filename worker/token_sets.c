/*
 * token_sets.c - masks made once from the vocabulary.
 */
#include "worker/token_sets.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum status token_sets_init(struct token_sets *sets, const struct vocabulary *vocabulary, int vocab,
                            struct error *err)
{
    *sets = (struct token_sets){.vocab = vocab,
                                .codes_first = vocabulary->code_id_min,
                                .codes_n = vocabulary->code_id_max - vocabulary->code_id_min + 1};
    if (vocabulary->code_id_max >= vocab)
        return error_set(
            err, STATUS_INVALID,
            "tokenizer.json has the picture code id %d, config.json's vocab_size is %d",
            vocabulary->code_id_max, vocab);
    sets->codes_mask = calloc((size_t)sets->codes_n, 1);
    sets->text_mask = calloc((size_t)vocab, 1);
    sets->scratch_mask = calloc((size_t)vocab, 1);
    if (!sets->codes_mask || !sets->text_mask || !sets->scratch_mask) {
        token_sets_fini(sets);
        return error_set(err, STATUS_NOMEM, "cannot allocate masks of %d ids", vocab);
    }
    for (int id = 0; id < vocab; id++)
        sets->text_mask[id] = id < vocabulary->n_ids && vocabulary_code(vocabulary, id) < 0;
    for (int i = 0; i < sets->codes_n; i++)
        sets->codes_mask[i] = vocabulary_code(vocabulary, sets->codes_first + i) >= 0;
    return STATUS_OK;
}

void token_sets_fini(struct token_sets *sets)
{
    free(sets->codes_mask);
    free(sets->text_mask);
    free(sets->scratch_mask);
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

static const uint8_t *mask_of_text(struct token_sets *sets, const Mgpt__Output *output)
{
    if (output->n_forbidden == 0)
        return sets->text_mask;
    memcpy(sets->scratch_mask, sets->text_mask, (size_t)sets->vocab);
    for (size_t i = 0; i < output->n_forbidden; i++)
        sets->scratch_mask[output->forbidden[i]] = 0;
    return sets->scratch_mask;
}

void token_sets_request(struct token_sets *sets, const Mgpt__Output *output,
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
        out->allowed = mask_of_text(sets, output);
    } else if (output->set == MGPT__TOKEN_SET__SET_CODES) {
        out->allowed = sets->codes_mask;
    } else {
        out->listed = (const int32_t *)output->allowed; /* checked to be below vocab */
        out->n_listed = (int)output->n_allowed;
    }
}
