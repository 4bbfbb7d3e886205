/*
 * base64.h - RFC 4648, the standard alphabet with padding.
 */
#ifndef MGPT_DAEMON_BASE64_H
#define MGPT_DAEMON_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* A text that the caller frees; NULL: no memory. */
char *base64_encode(const uint8_t *bytes, size_t n_bytes);

/* Strict: no spaces, padding as it must be. The caller frees the bytes; NULL: no base64, or no
 * memory. */
uint8_t *base64_decode(const char *text, size_t n_chars, size_t *n_bytes);

#endif
