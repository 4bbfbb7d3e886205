/*
 * tokenizer.h - text to token ids and back, as the checkpoint's tokenizer.json says.
 *
 * In:      tokenizer.json (format of HF tokenizers, model BPE); UTF-8 text, NUL included.
 * Out:     ids; text.
 * Reads:   model (vocab, merges as "a b" or ["a","b"], unk_token, fuse_unk, byte_fallback,
 *          ignore_merges, prefix and suffix of subwords), added_tokens, pre_tokenizer
 *          (pretokenizer.h), decoder (token_decoder.h). A normalizer, dropout and other types are
 *          STATUS_UNSUPPORTED. post_processor, truncation and padding are not applied: what stands
 *          around a text is the business of conversation.h.
 * Threads: a tokenizer is never changed after creation; any number may use it at once.
 */
#ifndef MGPT_MODEL_TOKENIZER_H
#define MGPT_MODEL_TOKENIZER_H

#include "model/ids.h"

enum {
    TOKENIZER_FILE_BYTES_MAX = 64 << 20, /* the published file has 5 MB */
    TOKENIZER_IDS_MAX = 1 << 20,         /* ids lie below this */
    TOKENIZER_TEXT_BYTES_MAX = 4 << 20   /* of one call to tokenizer_encode() */
};

enum tokenizer_mode {
    TOKENIZER_PLAIN, /* text of users: "<eoss>" is six characters */
    TOKENIZER_ADDED  /* added tokens of the file are found first: leftmost, longest at a place */
};

struct tokenizer;

/*
 * Reads a tokenizer.json from a file or from memory (`name` stands for it in error texts).
 *
 * The caller owns *out and ends it with tokenizer_destroy(). On error *out is NULL.
 */
enum status tokenizer_open(struct tokenizer **out, const char *path, struct error *err);
enum status tokenizer_create(struct tokenizer **out, const void *json, size_t bytes,
                             const char *name, struct error *err);
void tokenizer_destroy(struct tokenizer *tokenizer); /* NULL is fine */

/*
 * Appends the ids of a text to *out. No <s> is put in front.
 *
 * STATUS_INVALID: the text is no UTF-8, longer than TOKENIZER_TEXT_BYTES_MAX, or a regex of the
 * file passed its match limit on it; *out is then as it was. A character without a token becomes
 * unk_token; where the file names none it is left out, as HF does.
 */
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes,
                             enum tokenizer_mode mode, struct ids *out, struct error *err);

/*
 * The text of ids, special tokens by their names; bytes that are no UTF-8 become U+FFFD.
 *
 * The caller frees *text, which has a NUL behind its *bytes bytes. STATUS_INVALID: an id is not in
 * [0, tokenizer_n_ids()); ids in there that no token has are left out.
 */
enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n,
                             char **text, size_t *bytes, struct error *err);

int tokenizer_n_ids(const struct tokenizer *tokenizer); /* one past the largest id */

/* The id of a token by its name as in the file ("<racm3:break>"), -1 when there is none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *name);

/* The name of an id, as the file spells it; NULL when no token has it. Lives as long as the
 * tokenizer. */
const char *tokenizer_name(const struct tokenizer *tokenizer, int32_t id);

#endif
