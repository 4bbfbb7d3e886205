/*
 * added_tokens.h - finds the file's added tokens in a text: leftmost, longest at a place.
 *
 * As HF's AddedVocabulary does: tokens with "normalized": false are found first, the others in
 * what is left; single_word, lstrip and rstrip count.
 * Threads: never changed after creation.
 */
#ifndef MGPT_MODEL_ADDED_TOKENS_H
#define MGPT_MODEL_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { ADDED_TOKEN_BYTES_MAX = 1024 };

struct added_token {
    int32_t id;
    bool single_word;    /* only between characters that belong to no word */
    bool lstrip, rstrip; /* takes the white space in front of it, behind it */
    bool normalized;
};

/* A piece of the text: a token, or (id -1) text between tokens. None is empty. */
struct added_piece {
    size_t start, end;
    int32_t id;
};

struct added_pieces {
    struct added_piece *list; /* [n] in order, covering the text */
    size_t n, capacity;
};

void added_pieces_fini(struct added_pieces *pieces);

struct added_tokens;

enum status added_tokens_create(struct added_tokens **out, struct error *err);
void added_tokens_destroy(struct added_tokens *added); /* NULL is fine */

/* content: UTF-8, 1 to ADDED_TOKEN_BYTES_MAX bytes, not added before (the later one would win). */
enum status added_tokens_add(struct added_tokens *added, const char *content, size_t bytes,
                             const struct added_token *token, struct error *err);

/* Replaces *pieces by those of the text, valid UTF-8. */
enum status added_tokens_find(const struct added_tokens *added, const char *text, size_t bytes,
                              struct added_pieces *pieces, struct error *err);

#endif
