/*
 * vocabulary.h - the tokens with a meaning of their own, looked up by name.
 *
 * In:      a tokenizer.
 * Out:     ids. No id is a constant of this program; checkpoints number them differently.
 * Names:   <s>, <pad>, <racm3:break> starts a picture, <eoss> ends it, <reserved08799> ends a row,
 *          <reserved08706> ends a turn, <reserved08800+n> is a side of n * 32 pixels, IMGIMG..Z is
 *          a code: the letters A..J between are its decimal digits.
 * Threads: never changed after creation.
 */
#ifndef MGPT_MODEL_VOCABULARY_H
#define MGPT_MODEL_VOCABULARY_H

#include <stdint.h>

#include "base/error.h"

enum {
    VOCABULARY_SIZE_PIXELS = 32, /* sides of pictures are multiples of this */
    VOCABULARY_SIZES_MAX = 1199, /* <reserved08801> ... <reserved09999> */
    VOCABULARY_CODES_MAX = 65536
};

struct tokenizer;

/* Readable by all; tests may fill one by hand. */
struct vocabulary {
    int n_ids;        /* one past the largest id of the tokenizer */
    int32_t bos, pad; /* <s>, <pad>; pad is -1 when there is none */
    int32_t image_start, image_end;
    int32_t new_line, end_of_turn;
    int n_codes;
    const int32_t *code_to_id;        /* [n_codes] */
    const int32_t *id_to_code;        /* [n_ids] -1 for all that are no codes */
    int32_t code_id_min, code_id_max; /* bounds of code_to_id; ids between may be no codes */
    int n_sizes;
    const int32_t *size_to_id; /* [n_sizes + 1] by pixels / 32; [0] is -1 */
    const int32_t *id_to_size; /* [n_ids] pixels / 32, 0 for all that are no sizes */
};

/*
 * STATUS_INVALID: a name is missing, or codes are not 0 .. n-1, each once; the text says which.
 * The caller owns *out and ends it with vocabulary_destroy(); the tokenizer may end before.
 */
enum status vocabulary_create(struct vocabulary **out, const struct tokenizer *tokenizer,
                              struct error *err);
void vocabulary_destroy(struct vocabulary *vocabulary); /* NULL is fine */

/* The code of an id, -1 for an id that is no code. Any int is a legal id here. */
int vocabulary_code(const struct vocabulary *vocabulary, int32_t id);

/* The pixels a size token stands for, 0 for an id that is none. */
int vocabulary_size_pixels(const struct vocabulary *vocabulary, int32_t id);

/* The size token of a side, -1 when pixels is no multiple of 32 or has no token. */
int32_t vocabulary_size_id(const struct vocabulary *vocabulary, int pixels);

#endif
