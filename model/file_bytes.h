/*
 * file_bytes.h - a regular file as bytes: read whole under a limit, or mapped.
 *
 * Pipes, devices and folders are refused without waiting for them. Symbolic links are followed
 * (download caches are made of them); what counts is that a regular file stands at the end.
 */
#ifndef MGPT_MODEL_FILE_BYTES_H
#define MGPT_MODEL_FILE_BYTES_H

#include <stddef.h>

#include "base/error.h"

/*
 * Reads the file into memory that the caller frees; a NUL stands behind the last byte.
 * STATUS_NOT_FOUND, STATUS_IO, STATUS_NOMEM; STATUS_INVALID: no regular file, or above bytes_max.
 */
enum status file_bytes_read(unsigned char **bytes, size_t *n_bytes, const char *path,
                            size_t bytes_max, struct error *err);

/* A read-only mapping. An empty file maps to a non-NULL pointer with n_bytes 0. */
struct file_mapping {
    const unsigned char *bytes;
    size_t n_bytes;
};

enum status file_mapping_open(struct file_mapping *out, const char *path, struct error *err);
void file_mapping_drop_pages(const struct file_mapping *mapping);
void file_mapping_close(struct file_mapping *mapping); /* twice is fine */

#endif
