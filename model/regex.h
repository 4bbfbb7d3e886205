/*
 * regex.h - the regular expressions of tokenizer.json: PCRE2 with Unicode, held to limits.
 *
 * HF tokenizers matches with Oniguruma in Ruby's syntax. What is spelled differently there is
 * translated (regex_syntax.h); what PCRE2 has no equal for is STATUS_UNSUPPORTED.
 * Limits:  steps of one match attempt, memory, and CPU time of one text; past them
 *          STATUS_INVALID, never a hang.
 * Threads: a regex is never changed; each thread that matches has its own struct regex_search.
 */
#ifndef MGPT_MODEL_REGEX_H
#define MGPT_MODEL_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    REGEX_PATTERN_BYTES_MAX = 65536,
    REGEX_STEPS_MAX = 10000000, /* of PCRE2's match(), from one start in the text */
    REGEX_MEMORY_KIB_MAX = 65536,
    REGEX_TIME_MS_MAX = 5000 /* all searches of one struct regex_search */
};

struct regex;

enum regex_syntax {
    REGEX_RUBY,   /* as the file spells it */
    REGEX_LITERAL /* the text itself */
};

/* The pattern is UTF-8. STATUS_INVALID: no pattern PCRE2 takes. The caller ends *out with
 * regex_destroy(). */
enum status regex_create(struct regex **out, const char *pattern, size_t bytes,
                         enum regex_syntax syntax, struct error *err);
void regex_destroy(struct regex *regex); /* NULL is fine */

/* What one thread needs to match; one for all searches in a text, because it also counts the time.
 */
struct regex_search {
    void *match_data, *context;
    int64_t deadline_ms;
    unsigned n_starts; /* match attempts so far: the clock is read at some of them */
};

enum status regex_search_init(struct regex_search *search, struct error *err);
void regex_search_fini(struct regex_search *search);

/* A walk over all matches in a text, as Oniguruma's find_iter goes: an empty match right behind a
 * match does not count. */
struct regex_walk {
    const struct regex *regex;
    struct regex_search *search;
    const char *text; /* valid UTF-8, borrowed */
    size_t bytes;
    size_t at, last_end;
    bool has_last;
};

/* *found: whether there is one more match, text[*start, *end). */
enum status regex_walk_next(struct regex_walk *walk, bool *found, size_t *start, size_t *end,
                            struct error *err);

#endif
