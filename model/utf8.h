/*
 * utf8.h - checks, reads and writes UTF-8 by code points.
 */
#ifndef MGPT_MODEL_UTF8_H
#define MGPT_MODEL_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { UTF8_BYTES_MAX = 4, UTF8_REPLACEMENT = 0xfffd };

/*
 * The length of the valid sequence that starts at text[0]; 0 when there is none: overlong, cut
 * short, a surrogate, above U+10FFFF. *bad_bytes (NULL is fine) is then how many bytes one U+FFFD
 * stands for (the longest valid beginning, at least 1).
 */
size_t utf8_length(const char *text, size_t bytes, size_t *bad_bytes);

/* The index of the first byte that is no UTF-8; `bytes` when all is well. */
size_t utf8_find_invalid(const char *text, size_t bytes);

/* Reads the code point at text[0], which is valid; *length is that of its sequence. */
uint32_t utf8_read(const char *text, size_t *length);

/* Writes a code point and returns the number of bytes. */
size_t utf8_write(char text[UTF8_BYTES_MAX], uint32_t code_point);

#endif
