/*
 * regex_syntax.h - Ruby's regular expressions in PCRE2's spelling. For regex.c.
 *
 * Respelled: \h, \s, \w, \uHHHH, {,n}, (?m). Refused: set operations in classes, + behind {n,m}.
 */
#ifndef MGPT_MODEL_REGEX_SYNTAX_H
#define MGPT_MODEL_REGEX_SYNTAX_H

#include "model/text_buffer.h"

/*
 * The characters of words in Oniguruma and in Rust's regex, to stand inside brackets: Alphabetic
 * (letters, marks, numbers of letters, circled letters), decimal digits, connectors. PCRE2's own \w
 * is another set, which changes with its version.
 */
#define REGEX_WORD_SET                                                                             \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"                                         \
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

/* Appends the translation to *out. STATUS_UNSUPPORTED: PCRE2 would take it for something else. */
enum status regex_translate(struct text_buffer *out, const char *pattern, size_t bytes,
                            struct error *err);

#endif
