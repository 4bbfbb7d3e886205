/*
 * split.h - one cut of a word by a regex, and what becomes of matches. For pretokenizer.c.
 */
#ifndef MGPT_MODEL_SPLIT_H
#define MGPT_MODEL_SPLIT_H

#include "model/pretokenizer.h"

enum split_behavior {
    SPLIT_REMOVED,  /* matches are dropped */
    SPLIT_ISOLATED, /* each match is a word */
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS /* matches side by side are one word */
};

/* "Removed", "Isolated", ... as the file spells them; -1 for others. */
int split_parse_behavior(const char *name);

enum status words_push(struct words *words, uint32_t start, uint32_t end, struct error *err);

/*
 * Cuts the word `piece` of in->text and pushes the parts to *out, which shares the coordinates of
 * in->text. invert: what does not match counts as the matches.
 */
enum status split_word(struct words *out, const char *text, struct span piece,
                       const struct regex *regex, enum split_behavior behavior, bool invert,
                       struct regex_search *search, struct error *err);

#endif
