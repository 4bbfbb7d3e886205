/*
 * file_store.h - pictures that clients fetch by URL: kept in memory for a while, the oldest go
 * first.
 *
 * In:      bytes of a file.   Out: a name nobody can guess; the bytes again.
 * Limits:  bytes and files in all, age of a file.
 * Threads: any.
 */
#ifndef MGPT_DAEMON_FILE_STORE_H
#define MGPT_DAEMON_FILE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    FILE_STORE_NAME_BYTES = 48, /* "0123...ef.webp" */
    FILE_STORE_FILES_MAX = 4096,
    FILE_STORE_BYTES_MAX = 256 << 20, /* of all files together */
    FILE_STORE_AGE_S = 60 * 60,
};

struct file_store;

enum status file_store_create(struct file_store **out, struct error *err);
void file_store_destroy(struct file_store *store); /* NULL is fine */

/* Takes the bytes (from malloc) in every case. extension: "png". STATUS_NOMEM: larger than the
 * whole store. */
enum status file_store_put(struct file_store *store, uint8_t *take_bytes, size_t n_bytes,
                           const char *extension, int64_t now_s, char name[FILE_STORE_NAME_BYTES],
                           struct error *err);

/* A copy that the caller frees. STATUS_NOT_FOUND: never there, or gone by now. */
enum status file_store_get(struct file_store *store, const char *name, int64_t now_s,
                           uint8_t **bytes, size_t *n_bytes, struct error *err);

#endif
