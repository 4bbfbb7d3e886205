/*
 * pretokenizer.h - cuts a text into the words that BPE sees one by one.
 *
 * Reads:   the file's pre_tokenizer: Sequence, Split (Regex or String, all five behaviours,
 *          invert), Digits, Punctuation, ByteLevel; others, such as Metaspace or
 *          BertPreTokenizer, are STATUS_UNSUPPORTED. null: the text is one word.
 * Threads: never changed after creation.
 */
#ifndef MGPT_MODEL_PRETOKENIZER_H
#define MGPT_MODEL_PRETOKENIZER_H

#include <jansson.h>
#include <stdint.h>

#include "model/regex.h"
#include "model/text_buffer.h"

enum {
    PRETOKENIZER_STEPS_MAX = 64,
    PRETOKENIZER_BYTES_MAX = 64 << 20 /* of a text while it is cut: ByteLevel may double it */
};

struct span {
    uint32_t start, end;
};

/* Words lie in text, in order, none is empty. {0} is legal; ends with words_fini(). */
struct words {
    struct text_buffer text;
    struct span *spans; /* [n] */
    size_t n, capacity;
};

void words_fini(struct words *words);

struct pretokenizer;

/* spec: the value of "pre_tokenizer", NULL or null for none. The caller ends *out with
 * pretokenizer_destroy(). */
enum status pretokenizer_create(struct pretokenizer **out, const json_t *spec, struct error *err);
void pretokenizer_destroy(struct pretokenizer *pretokenizer); /* NULL is fine */

/* Replaces *words by those of the text, which is valid UTF-8. STATUS_INVALID: over a limit, here or
 * in regex.h. */
enum status pretokenizer_split(const struct pretokenizer *pretokenizer, const char *text,
                               size_t bytes, struct regex_search *search, struct words *words,
                               struct error *err);

#endif
