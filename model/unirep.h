/*
 * unirep.h - Uni-Rep, a picture as tokens: its grammar as a small state machine; whole pictures.
 *
 *     <racm3:break> height width   (row of width/16 codes, new line) x height/16   <eoss>
 *
 * Outside pictures everything is text. The machine is a plain struct: copy it to save it.
 * Use: init; push the prompt; then, for every new token, unirep_next() says what it may be, and
 * unirep_push() takes what was chosen.
 */
#ifndef MGPT_MODEL_UNIREP_H
#define MGPT_MODEL_UNIREP_H

#include <stdbool.h>

#include "model/ids.h"
#include "model/sizes.h"
#include "model/vocabulary.h"

enum {
    UNIREP_PATCH_PIXELS = 16,                       /* a code stands for a square of this side */
    UNIREP_FRAME_TOKENS = 4,                        /* start, height, width, end */
    UNIREP_TOKENS_MIN = 2 * 3 + UNIREP_FRAME_TOKENS /* the smallest picture, 32x32 */
};

enum unirep_next {
    UNIREP_TEXT,   /* anything; a start token opens a picture */
    UNIREP_HEIGHT, /* one of unirep_list_sizes() */
    UNIREP_WIDTH,  /* one of unirep_list_sizes() */
    UNIREP_CODE,   /* any code token */
    UNIREP_FORCED  /* unirep_forced() and nothing else: a new line or the end of the picture */
};

struct unirep {
    const struct vocabulary *vocabulary; /* borrowed */
    enum unirep_next next;
    int height, width;    /* pixels of the open picture; 0 until known */
    int n_picture_tokens; /* of the open picture, its start token included; 0 outside */
    int n_pictures;       /* finished */
};

void unirep_init(struct unirep *machine, const struct vocabulary *vocabulary);

static inline enum unirep_next unirep_next(const struct unirep *machine)
{
    return machine->next;
}

/* The forced token; -1 when the next one is to be drawn. */
int32_t unirep_forced(const struct unirep *machine);

/*
 * The size tokens allowed next, ascending by size: those that leave room for the whole picture in
 * `n_left` tokens to come.
 *
 * ids has room for vocabulary->n_sizes. Returns their number; 0 when not at a size, or nothing
 * fits. side_max: no side has more pixels than this; 0 for no such limit.
 */
int unirep_list_sizes(const struct unirep *machine, int64_t n_left, int side_max, int32_t *ids);

/*
 * Whether a picture may be opened now: outside pictures, and the smallest one fits in n_left
 * tokens.
 */
bool unirep_may_open(const struct unirep *machine, int64_t n_left);

/*
 * Takes the next token. STATUS_INVALID: the grammar does not allow it here (the machine is as it
 * was). An end or new-line token outside pictures is text like any other.
 */
enum status unirep_push(struct unirep *machine, int32_t id, struct error *err);

/*
 * Tokens still to come until the open picture is finished, its end included; -1 while the size is
 * not known, 0 outside.
 */
int64_t unirep_tokens_left(const struct unirep *machine);

/*
 * Whether a picture can have this size: both sides have a size token. The text of the error says
 * which has not.
 */
enum status unirep_check_size(const struct vocabulary *vocabulary, struct picture_size size,
                              struct error *err);

/* Tokens of a picture of this size, start and end included: (h/16)(w/16 + 1) + 4. */
int64_t unirep_length(struct picture_size size);
int64_t unirep_n_codes(struct picture_size size); /* (h/16)(w/16) */

/*
 * Appends the tokens of a picture. codes: [h/16, w/16] row by row, each in [0, n_codes).
 * STATUS_INVALID: a side without size token, a code out of range.
 */
enum status unirep_build(const struct vocabulary *vocabulary, struct picture_size size,
                         const int32_t *codes, struct ids *out, struct error *err);

/*
 * Appends start, height and width alone: what a prompt ends with when its picture's size is given.
 */
enum status unirep_build_opening(const struct vocabulary *vocabulary, struct picture_size size,
                                 struct ids *out, struct error *err);

/*
 * Reads the first picture in ids; what stands before its start token and behind its end is passed
 * over. Appends its codes (not ids) to *codes; *n_used (NULL is fine) is the index behind its end
 * token.
 *
 * STATUS_NOT_FOUND: no start token.  STATUS_INVALID: the picture breaks the grammar or is not
 * finished.
 */
enum status unirep_parse(const struct vocabulary *vocabulary, const int32_t *ids, size_t n,
                         struct picture_size *size, struct ids *codes, size_t *n_used,
                         struct error *err);

#endif
