/*
 * zip_fuzz.c - any bytes as a zip archive: every entry unpacked, twice, under a limit.
 */
#include "base/check.h"
#include "model/zip.h"

enum { ENTRY_BYTES_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static uint32_t sum(const struct zip_bytes *bytes)
{
    uint32_t total = 0;
    for (size_t i = 0; i < bytes->n_bytes; i++)
        total += bytes->bytes[i];
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct zip *zip;
    struct error err;
    if (zip_open_memory(&zip, bytes, n_bytes, "fuzz.zip", &err) != STATUS_OK) {
        CHECK(!zip);
        return 0;
    }
    for (size_t i = 0; i < zip_count(zip); i++) {
        const struct zip_entry *entry = zip_entry_at(zip, i);
        struct zip_bytes first, again;
        CHECK(zip_lookup(zip, entry->name) == entry);
        if (zip_read(zip, entry, ENTRY_BYTES_MAX, &first, &err) != STATUS_OK)
            continue;
        CHECK(first.n_bytes <= ENTRY_BYTES_MAX);
        CHECK(zip_read(zip, entry, ENTRY_BYTES_MAX, &again, &err) == STATUS_OK);
        CHECK(sum(&first) == sum(&again));
        zip_bytes_free(&first);
        zip_bytes_free(&again);
    }
    zip_close(zip);
    return 0;
}
