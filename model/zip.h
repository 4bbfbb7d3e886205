/*
 * zip.h - reads zip archives as torch.save writes them, and refuses what those never are.
 *
 * In:      stored and deflated entries of one disk, described by the central directory; the zip64
 * end records that torch always adds are tolerated as long as no number needs them. Refused:
 * encryption, zip64 sizes, several disks, other methods, entries that overlap or leave the file,
 * two of a name, sizes beyond the limits, ratios no deflate stream can have, wrong CRCs. Owns: the
 * mapping. Threads: one at a time.
 */
#ifndef MGPT_MODEL_ZIP_H
#define MGPT_MODEL_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    ZIP_ENTRIES_MAX = 65534, /* one more would need zip64 */
    ZIP_NAME_BYTES_MAX = 512,
    ZIP_INFLATED_BYTES_MAX = 256 << 20 /* of one deflated entry */
};

struct zip_entry {
    const char *name; /* NUL-terminated */
    bool is_deflated;
    uint32_t crc;
    size_t packed_bytes; /* in the archive */
    size_t bytes;        /* unpacked */
    size_t data_offset;  /* of the packed bytes in the archive */
    bool is_verified;    /* the CRC was compared */
};

struct zip;

/* On error *out is NULL: STATUS_NOT_FOUND, STATUS_IO, STATUS_NOMEM, STATUS_INVALID,
 * STATUS_UNSUPPORTED. */
enum status zip_open(struct zip **out, const char *path, struct error *err);

/* The same over the caller's memory, which must outlive *out; `name` stands for the file in error
 * texts. */
enum status zip_open_memory(struct zip **out, const void *bytes, size_t n_bytes, const char *name,
                            struct error *err);
void zip_close(struct zip *zip); /* NULL is fine */

const char *zip_path(const struct zip *zip);
size_t zip_count(const struct zip *zip);
const struct zip_entry *zip_entry_at(const struct zip *zip, size_t index);   /* sorted by name */
const struct zip_entry *zip_lookup(const struct zip *zip, const char *name); /* NULL: none */

/* An entry's bytes: in the mapping when stored, on the heap when deflated. */
struct zip_bytes {
    const unsigned char *bytes;
    size_t n_bytes;
    void *heap; /* NULL: borrowed from the archive */
};

/*
 * Unpacks an entry of at most bytes_max and compares its CRC (once). *out ends with
 * zip_bytes_free(), before zip_close(). STATUS_INVALID: too large, broken deflate stream, wrong
 * CRC.  STATUS_NOMEM.
 */
enum status zip_read(struct zip *zip, const struct zip_entry *entry, size_t bytes_max,
                     struct zip_bytes *out, struct error *err);
void zip_bytes_free(struct zip_bytes *bytes);

void zip_drop_pages(struct zip *zip);

#endif
