/*
 * zip.c - the central directory is the truth; local headers only tell where the data begins.
 *
 * Layout: PKWARE's APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16
 * (end record).
 */
#include "model/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "model/file_bytes.h"

enum {
    END_BYTES = 22,
    END_COMMENT_BYTES_MAX = 65535,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    METHOD_STORED = 0,
    METHOD_DEFLATED = 8,
    FLAGS_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13, /* traditional, strong, masked directory */
    DEFLATE_RATIO_MAX = 1032                     /* zlib's technical notes: no stream does better */
};

struct zip {
    struct file_mapping mapping; /* n_bytes 0 when the memory is the caller's */
    const unsigned char *bytes;
    size_t n_bytes;
    char *path;
    size_t n_entries;
    struct zip_entry *entries; /* [n_entries] by name */
    char *names;               /* all names, each with a NUL */
};

/* A central directory record that was checked to lie inside the directory. */
struct central {
    const unsigned char *at;
    const char *name; /* not terminated */
    size_t name_bytes;
    size_t record_bytes;
    size_t local_offset;
};

static uint32_t read16(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t read32(const unsigned char *at)
{
    return read16(at) | read16(at + 2) << 16;
}

/* The end record is the last one whose comment reaches exactly to the end of the file. */
static const unsigned char *find_end(const struct zip *zip)
{
    if (zip->n_bytes < END_BYTES)
        return NULL;
    size_t back_max = zip->n_bytes - END_BYTES;
    if (back_max > END_COMMENT_BYTES_MAX)
        back_max = END_COMMENT_BYTES_MAX;
    for (size_t back = 0; back <= back_max; back++) {
        const unsigned char *at = zip->bytes + zip->n_bytes - END_BYTES - back;
        if (read32(at) == 0x06054b50 && read16(at + 20) == back)
            return at;
    }
    return NULL;
}

static enum status refuse_zip64(const struct zip *zip, const char *what, struct error *err)
{
    return error_set(err, STATUS_UNSUPPORTED,
                     "'%s': %s needs zip64, expected an archive below 4 GiB", zip->path, what);
}

/* Fixed fields of the record, its name, and that its entry's local header can be where it says. */
static enum status read_central(struct central *out, const struct zip *zip, const unsigned char *at,
                                const unsigned char *end, struct error *err)
{
    if (end - at < CENTRAL_BYTES || read32(at) != 0x02014b50)
        return error_set(err, STATUS_INVALID, "'%s': byte %zu does not begin a directory entry",
                         zip->path, (size_t)(at - zip->bytes));
    out->at = at;
    out->name = (const char *)at + CENTRAL_BYTES;
    out->name_bytes = read16(at + 28);
    out->record_bytes = CENTRAL_BYTES + out->name_bytes + read16(at + 30) + read16(at + 32);
    out->local_offset = read32(at + 42);
    if (out->record_bytes > (size_t)(end - at))
        return error_set(err, STATUS_INVALID, "'%s': the directory entry at byte %zu is cut short",
                         zip->path, (size_t)(at - zip->bytes));
    if (out->name_bytes == 0 || out->name_bytes > ZIP_NAME_BYTES_MAX ||
        memchr(out->name, 0, out->name_bytes))
        return error_set(err, STATUS_INVALID,
                         "'%s': the directory entry at byte %zu has a name of %zu bytes, expected "
                         "1 to %d without NUL",
                         zip->path, (size_t)(at - zip->bytes), out->name_bytes, ZIP_NAME_BYTES_MAX);
    return STATUS_OK;
}

static enum status check_kind(const struct zip *zip, const struct central *central,
                              const char *name, struct error *err)
{
    const unsigned char *at = central->at;
    uint32_t flags = read16(at + 8), method = read16(at + 10);
    if (flags & FLAGS_ENCRYPTED)
        return error_set(err, STATUS_UNSUPPORTED, "'%s': entry '%s' is encrypted", zip->path, name);
    if (method != METHOD_STORED && method != METHOD_DEFLATED)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "'%s': entry '%s' has compression method %u, expected 0 (stored) or 8 (deflated)",
            zip->path, name, method);
    if (read32(at + 20) == UINT32_MAX || read32(at + 24) == UINT32_MAX ||
        read32(at + 42) == UINT32_MAX)
        return refuse_zip64(zip, name, err);
    if (read16(at + 34) != 0)
        return error_set(err, STATUS_UNSUPPORTED, "'%s': entry '%s' lies on disk %u, expected 0",
                         zip->path, name, read16(at + 34));
    return STATUS_OK;
}

static enum status check_sizes(const struct zip *zip, const struct zip_entry *entry,
                               struct error *err)
{
    if (!entry->is_deflated && entry->packed_bytes != entry->bytes)
        return error_set(err, STATUS_INVALID,
                         "'%s': stored entry '%s' has %zu bytes packed and %zu unpacked", zip->path,
                         entry->name, entry->packed_bytes, entry->bytes);
    if (!entry->is_deflated)
        return STATUS_OK;
    if (entry->bytes > ZIP_INFLATED_BYTES_MAX)
        return error_set(err, STATUS_INVALID,
                         "'%s': entry '%s' unpacks to %zu bytes, expected at most %d", zip->path,
                         entry->name, entry->bytes, ZIP_INFLATED_BYTES_MAX);
    if (entry->bytes / DEFLATE_RATIO_MAX > entry->packed_bytes)
        return error_set(
            err, STATUS_INVALID,
            "'%s': entry '%s' unpacks from %zu to %zu bytes, expected at most %d times as many",
            zip->path, entry->name, entry->packed_bytes, entry->bytes, DEFLATE_RATIO_MAX);
    return STATUS_OK;
}

/* The local header may differ in sizes and CRC (they may follow the data), but not in name, method
 * and encryption. */
static enum status locate_data(struct zip_entry *entry, const struct zip *zip,
                               const struct central *central, size_t directory, struct error *err)
{
    size_t at = central->local_offset;
    if (at > directory || directory - at < LOCAL_BYTES || read32(zip->bytes + at) != 0x04034b50)
        return error_set(err, STATUS_INVALID, "'%s': entry '%s' has no local header at byte %zu",
                         zip->path, entry->name, at);
    const unsigned char *local = zip->bytes + at;
    size_t name_bytes = read16(local + 26);
    size_t header_bytes = LOCAL_BYTES + name_bytes + read16(local + 28);
    if (directory - at < header_bytes || directory - at - header_bytes < entry->packed_bytes)
        return error_set(
            err, STATUS_INVALID,
            "'%s': entry '%s' of %zu bytes at byte %zu reaches into the directory at byte %zu",
            zip->path, entry->name, entry->packed_bytes, at, directory);
    if (name_bytes != central->name_bytes ||
        memcmp(local + LOCAL_BYTES, central->name, name_bytes) != 0 ||
        read16(local + 8) != read16(central->at + 10) || (read16(local + 6) & FLAGS_ENCRYPTED))
        return error_set(err, STATUS_INVALID,
                         "'%s': entry '%s' differs between directory and local header", zip->path,
                         entry->name);
    entry->data_offset = at + header_bytes;
    return STATUS_OK;
}

static enum status take_entry(struct zip_entry *entry, char *name, const struct zip *zip,
                              const struct central *central, size_t directory, struct error *err)
{
    memcpy(name, central->name, central->name_bytes);
    name[central->name_bytes] = 0;
    *entry = (struct zip_entry){.name = name,
                                .is_deflated = read16(central->at + 10) == METHOD_DEFLATED,
                                .crc = read32(central->at + 16),
                                .packed_bytes = read32(central->at + 20),
                                .bytes = read32(central->at + 24)};
    enum status st = check_kind(zip, central, name, err);
    if (st == STATUS_OK)
        st = check_sizes(zip, entry, err);
    if (st == STATUS_OK)
        st = locate_data(entry, zip, central, directory, err);
    return st;
}

static int by_place(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    size_t p = x->data_offset, q = y->data_offset;
    return p != q ? (p > q) - (p < q)
                  : (x->packed_bytes > y->packed_bytes) - (x->packed_bytes < y->packed_bytes);
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Entries that share bytes are the way to make a small archive large; two of a name, to show each
 * reader another. */
static enum status check_apart(struct zip *zip, struct error *err)
{
    qsort(zip->entries, zip->n_entries, sizeof(zip->entries[0]), by_place);
    for (size_t i = 1; i < zip->n_entries; i++) {
        const struct zip_entry *before = &zip->entries[i - 1], *entry = &zip->entries[i];
        size_t header = LOCAL_BYTES + strlen(entry->name);
        if (entry->data_offset - header < before->data_offset + before->packed_bytes)
            return error_set(err, STATUS_INVALID, "'%s': entries '%s' and '%s' overlap", zip->path,
                             before->name, entry->name);
    }
    qsort(zip->entries, zip->n_entries, sizeof(zip->entries[0]), by_name);
    for (size_t i = 1; i < zip->n_entries; i++)
        if (strcmp(zip->entries[i - 1].name, zip->entries[i].name) == 0)
            return error_set(err, STATUS_INVALID, "'%s' has two entries '%s'", zip->path,
                             zip->entries[i].name);
    return STATUS_OK;
}

static enum status read_directory(struct zip *zip, size_t directory, size_t directory_bytes,
                                  size_t n, struct error *err)
{
    const unsigned char *at = zip->bytes + directory, *end = at + directory_bytes;
    if (directory_bytes / CENTRAL_BYTES < n)
        return error_set(err, STATUS_INVALID,
                         "'%s': the directory of %zu bytes cannot hold %zu entries", zip->path,
                         directory_bytes, n);
    zip->entries = calloc(n + 1, sizeof(zip->entries[0]));
    char *name = zip->names = malloc(directory_bytes + n + 1);
    if (!zip->entries || !zip->names)
        return error_set(err, STATUS_NOMEM, "cannot allocate the %zu entries of '%s'", n,
                         zip->path);
    for (size_t i = 0; i < n; i++) {
        struct central central = {0};
        enum status st = read_central(&central, zip, at, end, err);
        if (st == STATUS_OK)
            st = take_entry(&zip->entries[i], name, zip, &central, directory, err);
        if (st != STATUS_OK)
            return st;
        name += central.name_bytes + 1;
        at += central.record_bytes;
        zip->n_entries++;
    }
    if (at != end)
        return error_set(err, STATUS_INVALID,
                         "'%s': the directory has %zu bytes behind its %zu entries", zip->path,
                         (size_t)(end - at), n);
    return check_apart(zip, err);
}

static enum status read_end(struct zip *zip, struct error *err)
{
    const unsigned char *end = find_end(zip);
    if (!end)
        return error_set(
            err, STATUS_INVALID,
            "'%s' is no zip archive (no end record): cut short, or saved by torch before 1.6",
            zip->path);
    if (read16(end + 4) != 0 || read16(end + 6) != 0 || read16(end + 8) != read16(end + 10))
        return error_set(err, STATUS_UNSUPPORTED,
                         "'%s' is one disk of several, expected a whole archive", zip->path);
    size_t n = read16(end + 10), directory_bytes = read32(end + 12), directory = read32(end + 16);
    if (n > ZIP_ENTRIES_MAX || directory_bytes == UINT32_MAX || directory == UINT32_MAX)
        return refuse_zip64(zip, "the directory", err);
    size_t end_offset = (size_t)(end - zip->bytes);
    if (directory > end_offset || end_offset - directory < directory_bytes)
        return error_set(
            err, STATUS_INVALID,
            "'%s': the directory of %zu bytes at byte %zu reaches past the end record at byte %zu",
            zip->path, directory_bytes, directory, end_offset);
    return read_directory(zip, directory, directory_bytes, n, err);
}

static enum status open_bytes(struct zip **out, struct file_mapping mapping, const void *bytes,
                              size_t n_bytes, const char *name, struct error *err)
{
    *out = NULL;
    struct zip *zip = calloc(1, sizeof(*zip));
    if (zip)
        zip->path = strdup(name);
    if (!zip || !zip->path) {
        free(zip);
        file_mapping_close(&mapping);
        return error_set(err, STATUS_NOMEM, "cannot allocate the reader of '%s'", name);
    }
    zip->mapping = mapping;
    zip->bytes = bytes;
    zip->n_bytes = n_bytes;
    enum status st = read_end(zip, err);
    if (st != STATUS_OK) {
        zip_close(zip);
        return st;
    }
    *out = zip;
    return STATUS_OK;
}

enum status zip_open(struct zip **out, const char *path, struct error *err)
{
    struct file_mapping mapping;
    *out = NULL;
    enum status st = file_mapping_open(&mapping, path, err);
    if (st != STATUS_OK)
        return st;
    return open_bytes(out, mapping, mapping.bytes, mapping.n_bytes, path, err);
}

enum status zip_open_memory(struct zip **out, const void *bytes, size_t n_bytes, const char *name,
                            struct error *err)
{
    return open_bytes(out, (struct file_mapping){NULL, 0}, bytes, n_bytes, name, err);
}

void zip_close(struct zip *zip)
{
    if (!zip)
        return;
    file_mapping_close(&zip->mapping);
    free(zip->entries);
    free(zip->names);
    free(zip->path);
    free(zip);
}

const char *zip_path(const struct zip *zip)
{
    return zip->path;
}

size_t zip_count(const struct zip *zip)
{
    return zip->n_entries;
}

const struct zip_entry *zip_entry_at(const struct zip *zip, size_t index)
{
    return index < zip->n_entries ? &zip->entries[index] : NULL;
}

const struct zip_entry *zip_lookup(const struct zip *zip, const char *name)
{
    struct zip_entry key = {.name = name};
    return bsearch(&key, zip->entries, zip->n_entries, sizeof(key), by_name);
}

/* Raw deflate into exactly the bytes the directory promises; the sizes are below 4 GiB and fit
 * zlib's counters. */
static enum status inflate_entry(const struct zip *zip, const struct zip_entry *entry,
                                 unsigned char *dst, struct error *err)
{
    z_stream stream = {.next_in = (unsigned char *)(uintptr_t)(zip->bytes + entry->data_offset),
                       .avail_in = (uInt)entry->packed_bytes,
                       .next_out = dst,
                       .avail_out = (uInt)entry->bytes};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        return error_set(err, STATUS_NOMEM, "'%s': cannot allocate the inflater", zip->path);
    int result = inflate(&stream, Z_FINISH);
    size_t made = entry->bytes - stream.avail_out;
    size_t rest = stream.avail_in;
    inflateEnd(&stream);
    if (result != Z_STREAM_END || made != entry->bytes || rest != 0)
        return error_set(
            err, STATUS_INVALID,
            "'%s': entry '%s' is a broken deflate stream: %zu of %zu bytes, %zu left over",
            zip->path, entry->name, made, entry->bytes, rest);
    return STATUS_OK;
}

static enum status check_crc(const struct zip *zip, struct zip_entry *entry,
                             const unsigned char *bytes, struct error *err)
{
    if (entry->is_verified)
        return STATUS_OK;
    uint32_t crc = (uint32_t)crc32_z(0, bytes, entry->bytes);
    if (crc != entry->crc)
        return error_set(err, STATUS_INVALID,
                         "'%s': entry '%s' has CRC %08x, expected %08x: the file is damaged",
                         zip->path, entry->name, crc, entry->crc);
    entry->is_verified = true;
    return STATUS_OK;
}

enum status zip_read(struct zip *zip, const struct zip_entry *entry, size_t bytes_max,
                     struct zip_bytes *out, struct error *err)
{
    *out = (struct zip_bytes){0};
    if (entry->bytes > bytes_max)
        return error_set(err, STATUS_INVALID,
                         "'%s': entry '%s' has %zu bytes, expected at most %zu", zip->path,
                         entry->name, entry->bytes, bytes_max);
    const unsigned char *bytes = zip->bytes + entry->data_offset;
    enum status st = STATUS_OK;
    if (entry->is_deflated) {
        out->heap = malloc(entry->bytes + 1);
        if (!out->heap)
            return error_set(err, STATUS_NOMEM, "'%s': cannot allocate %zu bytes for entry '%s'",
                             zip->path, entry->bytes, entry->name);
        bytes = out->heap;
        st = inflate_entry(zip, entry, out->heap, err);
    }
    if (st == STATUS_OK)
        st = check_crc(zip, &zip->entries[entry - zip->entries], bytes, err);
    if (st != STATUS_OK) {
        zip_bytes_free(out);
        return st;
    }
    out->bytes = bytes;
    out->n_bytes = entry->bytes;
    return STATUS_OK;
}

void zip_bytes_free(struct zip_bytes *bytes)
{
    free(bytes->heap);
    *bytes = (struct zip_bytes){0};
}

void zip_drop_pages(struct zip *zip)
{
    file_mapping_drop_pages(&zip->mapping);
}
