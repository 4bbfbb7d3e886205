/*
 * token_decoder.h - the file's decoder: from the names of tokens to the text they spell.
 *
 * Reads:   ByteLevel, ByteFallback, Fuse, and Sequence of them; others are STATUS_UNSUPPORTED.
 *          null: names joined by spaces, as HF does it.
 * Threads: never changed after creation.
 */
#ifndef MGPT_MODEL_TOKEN_DECODER_H
#define MGPT_MODEL_TOKEN_DECODER_H

#include <jansson.h>

#include "model/split.h"

enum { TOKEN_DECODER_STEPS_MAX = 16 };

struct token_decoder;

/* spec: the value of "decoder", NULL or null for none. The caller ends *out with
 * token_decoder_destroy(). */
enum status token_decoder_create(struct token_decoder **out, const json_t *spec, struct error *err);
void token_decoder_destroy(struct token_decoder *decoder); /* NULL is fine */

/* names: one word a token. They are used up: what is left in *names has no meaning. Appends to
 * *text. */
enum status token_decoder_run(const struct token_decoder *decoder, struct words *names,
                              struct text_buffer *text, struct error *err);

#endif
