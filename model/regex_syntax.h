/*
 * regex_syntax.h - Ruby's regular expressions in PCRE2's spelling. For regex.c.
 */
#ifndef MGPT_MODEL_REGEX_SYNTAX_H
#define MGPT_MODEL_REGEX_SYNTAX_H

#include "model/text_buffer.h"

/* Appends the translation to *out. STATUS_UNSUPPORTED: PCRE2 would take it for something else. */
enum status regex_translate(struct text_buffer *out, const char *pattern, size_t bytes,
                            struct error *err);

#endif
