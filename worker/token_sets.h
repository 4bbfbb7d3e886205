/*
 * token_sets.h - which ids a draw may give, as the sampler wants it: a range, a mask or a list.
 *
 * In:      the vocabulary of the model folder.
 * Owns:    two masks, in device memory.
 * Threads: the compute thread.
 */
#ifndef MGPT_WORKER_TOKEN_SETS_H
#define MGPT_WORKER_TOKEN_SETS_H

#include <stdbool.h>

#include "kernels/sample.h"
#include "model/vocabulary.h"
#include "proto/mgpt.pb-c.h"

struct token_sets {
    struct stream *stream;    /* borrowed */
    int vocab;                /* of the model's head */
    int codes_first, codes_n; /* the range of ids that holds all codes */
    uint8_t *codes_mask;      /* device [codes_n] 1 for codes */
    uint8_t *text_mask;       /* device [vocab] 1 for ids of the tokenizer that are no codes */
    bool is_list_whole; /* a list takes the logits of all ids; else from its first to its last */
};

/* stream: of the device whose logits are drawn from.  STATUS_INVALID: the tokenizer has a code at
 * or above vocab. */
enum status token_sets_init(struct token_sets *sets, const struct vocabulary *vocabulary, int vocab,
                            struct stream *stream, struct error *err);
void token_sets_fini(struct token_sets *sets); /* all zero is fine */

/* The range of ids whose logits the output needs. */
void token_sets_range(const struct token_sets *sets, const Mgpt__Output *output, int *first,
                      int *n);

/* Fills range, mask or list, top_k and the numbers of `sampling` in; logits are the caller's. */
void token_sets_request(const struct token_sets *sets, const Mgpt__Output *output,
                        const Mgpt__Sampling *sampling, struct sample_request *out);

#endif
