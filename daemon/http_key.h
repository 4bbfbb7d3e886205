/*
 * http_key.h - the key that clients from other machines show: "Authorization: Bearer KEY".
 *
 * In:      the first line of a private file; the header of a request.   Out: whether they agree.
 * Threads: any, once the key is read.
 */
#ifndef MGPT_DAEMON_HTTP_KEY_H
#define MGPT_DAEMON_HTTP_KEY_H

#include <stdbool.h>

#include "base/error.h"

enum { HTTP_KEY_CHARS_MIN = 16, HTTP_KEY_CHARS_MAX = 256 };

struct http_key {
    char text[HTTP_KEY_CHARS_MAX + 1]; /* "": no key is asked for */
};

/*
 * Reads the key: HTTP_KEY_CHARS_MIN to _MAX visible ASCII characters on the first line.
 *
 * STATUS_NOT_FOUND, STATUS_IO: the file.  STATUS_INVALID: it is no regular file, others may read
 * it, or the line is no key. Texts name the file and never quote what is in it.
 */
enum status http_key_load(struct http_key *out, const char *path, struct error *err);

/* header: the value of Authorization, or NULL. Takes the same time wherever they differ. */
bool http_key_fits(const struct http_key *key, const char *header);

#endif
