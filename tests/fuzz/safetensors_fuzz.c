/*
 * safetensors_fuzz.c - any bytes as a safetensors file: opened, every tensor viewed and read to its
 * last byte.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void read_entry(const struct safetensors *file, const struct safetensors_entry *entry)
{
    struct tensor_view view;
    struct error err;
    CHECK(safetensors_lookup(file, entry->name) == entry);
    if (safetensors_view(file, entry, &view, &err) != STATUS_OK)
        return;
    CHECK(tensor_elements(&view) * dtype_bytes(view.dtype) == view.bytes);
    void *copy = malloc(view.bytes + 1); /* aligned, as a reader makes it */
    CHECK(copy);
    memcpy(copy, view.data, view.bytes);
    view.data = copy;
    tensor_check_finite(&view, &err);
    tensor_expect_shape(&view, 2, (int64_t[]){1, 1}, &err);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct safetensors *file;
    struct error err;
    if (safetensors_open_memory(&file, bytes, n_bytes, "fuzz.safetensors", &err) != STATUS_OK) {
        CHECK(!file);
        return 0;
    }
    for (size_t i = 0; i < safetensors_count(file); i++)
        read_entry(file, safetensors_entry_at(file, i));
    safetensors_close(file);
    return 0;
}
