/*
 * codec_fuzz.c - any bytes as the data.pkl of a vqgan.ckpt whose archive is sound: tensors over
 * storages of known size.
 *
 * The archive is made around the input, so that the fuzzer need not guess CRCs.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/check.h"
#include "model/vqgan_checkpoint.h"

enum { STORAGE_BYTES = 64, SIDE = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

struct archive {
    unsigned char *bytes;
    size_t n_bytes;
    unsigned char directory[512];
    size_t directory_bytes;
    int n_entries;
};

static void put(unsigned char *at, int width, uint64_t value)
{
    for (int i = 0; i < width; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static void add(struct archive *archive, const char *name, const void *data, size_t n)
{
    unsigned char *local = archive->bytes + archive->n_bytes;
    unsigned char *central = archive->directory + archive->directory_bytes;
    put(local, 4, 0x04034b50);
    put(local + 14, 4, crc32_z(0, data, n));
    put(local + 18, 4, n);
    put(local + 22, 4, n);
    put(local + 26, 2, strlen(name));
    memcpy(local + 30, name, strlen(name));
    memcpy(local + 30 + strlen(name), data, n);
    put(central, 4, 0x02014b50);
    memcpy(central + 16, local + 14, 16);
    put(central + 42, 4, archive->n_bytes);
    memcpy(central + 46, name, strlen(name));
    archive->n_bytes += 30 + strlen(name) + n;
    archive->directory_bytes += 46 + strlen(name);
    archive->n_entries++;
}

static void finish(struct archive *archive)
{
    unsigned char *end = archive->bytes + archive->n_bytes + archive->directory_bytes;
    memcpy(archive->bytes + archive->n_bytes, archive->directory, archive->directory_bytes);
    put(end, 4, 0x06054b50);
    put(end + 8, 2, (uint64_t)archive->n_entries);
    put(end + 10, 2, (uint64_t)archive->n_entries);
    put(end + 12, 4, archive->directory_bytes);
    put(end + 16, 4, archive->n_bytes);
    archive->n_bytes += archive->directory_bytes + 22;
}

static void read_tensors(struct vqgan_checkpoint *checkpoint)
{
    static const char *const names[] = {"t", "encoder.conv_in.weight", "quantize.embedding.weight"};
    float values[SIDE * SIDE];
    struct error err;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        for (int rank = 0; rank <= 2; rank++)
            vqgan_checkpoint_read(checkpoint, names[i], rank, (int64_t[]){SIDE, SIDE}, values,
                                  &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    const unsigned char storage[STORAGE_BYTES] = {1, 2, 3};
    struct archive archive = {.bytes = calloc(1, n_bytes + 1024)};
    struct vqgan_checkpoint *checkpoint;
    struct vqgan_config config = {.ch = 32};
    struct error err;
    CHECK(archive.bytes);
    add(&archive, "a/data.pkl", bytes, n_bytes);
    add(&archive, "a/data/0", storage, 16);
    add(&archive, "a/data/1", storage, STORAGE_BYTES);
    finish(&archive);
    if (vqgan_checkpoint_open_memory(&checkpoint, &config, archive.bytes, archive.n_bytes,
                                     "fuzz.ckpt", &err) == STATUS_OK)
        read_tensors(checkpoint);
    else
        CHECK(!checkpoint);
    vqgan_checkpoint_close(checkpoint);
    free(archive.bytes);
    return 0;
}
