/*
 * error.h - what went wrong, as a code and a line of text in the caller's storage.
 *
 * Text: lower case, no full stop, the failure first, the subject quoted, numbers with what was expected:
 * "cannot open 'x.safetensors': no such file", "layer 12: k_proj is [4096, 4096], expected [1024, 4096]".
 */
#ifndef MGPT_BASE_ERROR_H
#define MGPT_BASE_ERROR_H

#include "base/status.h"

enum { ERROR_TEXT_BYTES = 512 }; /* longer text is cut, ending in "..." */

struct error {
    enum status code;
    char text[ERROR_TEXT_BYTES];
};

/* Writes code and text into *err (NULL is fine) and returns the code, so that a failure is one line. */
enum status error_set(struct error *err, enum status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts context in front of the text already there: "context: text". Returns the code given. */
enum status error_wrap(struct error *err, enum status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* error_set with ": " and the text of errno_value (lower-cased) behind. */
enum status error_set_errno(struct error *err, enum status code, int errno_value, const char *format,
                            ...) __attribute__((format(printf, 4, 5)));

#endif
