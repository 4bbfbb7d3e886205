/*
 * stream.c - a stream: threads, scratch and memory of the CPU, and the device beside it where there
 * is one.
 */
#include "kernels/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "kernels/cpu/pool.h"
#include "kernels/device.h"

enum { PAGE_BYTES = 4096, LARGE_PAGE_BYTES = 2 << 20, MAPPED_FROM_BYTES = 1 << 20 };

struct scratch {
    void *memory;
    size_t bytes;
};

/* Room for what stays, piece by piece. */
struct packed {
    char *start; /* of addresses for all memory there is; pages come with the pieces */
    size_t room, used;
    int n_pieces;
};

struct stream {
    enum code_path path;
    int n_threads;
    struct pool *pool;
    struct device *device; /* NULL on the CPU */
    struct packed packed;
    struct scratch scratch[STREAM_THREADS_MAX]; /* one a thread, touched by that thread alone */
};

struct pages {
    char *memory;
    size_t bytes;
    int failed; /* written by any thread that finds no memory */
};

static void take_share(void *context, int thread_index, int n_threads)
{
    struct pages *pages = context;
    int64_t first, last, n = (int64_t)(pages->bytes + LARGE_PAGE_BYTES - 1) / LARGE_PAGE_BYTES;
    stream_share(n, thread_index, n_threads, &first, &last);
    size_t from = (size_t)first * LARGE_PAGE_BYTES, to = (size_t)last * LARGE_PAGE_BYTES;
    to = to < pages->bytes ? to : pages->bytes;
    if (from >= to || madvise(pages->memory + from, to - from, MADV_POPULATE_WRITE) == 0)
        return;
    if (errno == ENOMEM) {
        __atomic_store_n(&pages->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    /* A kernel before 5.14 does not know it. */
    for (size_t at = from; at < to; at += PAGE_BYTES)
        ((volatile char *)pages->memory)[at] = 0;
}

/* Takes all pages now. One that is first touched in a step stops it, for a tenth of a second where
 * a virtual machine has to ask its host for it. stream NULL: the calling thread alone. 0: there is
 * not that much. */
static int take_pages(struct stream *stream, char *memory, size_t bytes)
{
    struct pages pages = {memory, bytes, 0};
    if (stream)
        stream_parallel(stream, take_share, &pages);
    else
        take_share(&pages, 0, 1);
    return !pages.failed;
}

/* Maps `bytes` at a multiple of LARGE_PAGE_BYTES: the mapping is made too long and both ends are
 * given back. NULL: there are not so many addresses. */
static char *map_aligned(size_t bytes, int flags)
{
    size_t whole = bytes + LARGE_PAGE_BYTES;
    char *start =
        mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    char *aligned =
        (char *)(((uintptr_t)start + LARGE_PAGE_BYTES - 1) & ~(uintptr_t)(LARGE_PAGE_BYTES - 1));
    if (aligned > start)
        munmap(start, (size_t)(aligned - start));
    if (start + whole > aligned + bytes)
        munmap(aligned + bytes, (size_t)(start + whole - (aligned + bytes)));
    madvise(aligned, bytes, MADV_HUGEPAGE); /* a wish: without it things are only slower */
    return aligned;
}

static void *map_pages(struct stream *stream, size_t bytes)
{
    char *memory = map_aligned(bytes, 0);
    if (!memory || take_pages(stream, memory, bytes))
        return memory;
    munmap(memory, bytes);
    return NULL;
}

/* Mappings are given back by their length, so lengths are rounded the same way by both. */
static size_t mapped_bytes(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

static enum status host_alloc(struct stream *stream, void **out, size_t bytes, struct error *err)
{
    *out = NULL;
    if (bytes > SIZE_MAX / 2)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", bytes);
    if (bytes >= MAPPED_FROM_BYTES) {
        *out = map_pages(stream, mapped_bytes(bytes));
    } else {
        size_t rounded = (bytes + 63) & ~(size_t)63;
        *out = aligned_alloc(64, rounded ? rounded : 64);
        if (*out)
            memset(*out, 0, rounded);
    }
    return *out ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", bytes);
}

static void host_free(void *memory, size_t bytes)
{
    if (!memory)
        return;
    if (bytes >= MAPPED_FROM_BYTES)
        CHECK(munmap(memory, mapped_bytes(bytes)) == 0);
    else
        free(memory);
}

/* As many addresses as there is memory, unless they are there; without them all lie apart. */
static bool reserve_packed(struct packed *packed)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    if (!packed->start && pages > 0) {
        packed->room = (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
        packed->start = map_aligned(packed->room, MAP_NORESERVE);
    }
    return packed->start;
}

static bool is_packed(const struct packed *packed, const void *memory)
{
    const char *at = memory;
    return packed->start && at >= packed->start && at < packed->start + packed->room;
}

static void *take_packed(struct stream *stream, size_t bytes)
{
    struct packed *packed = &stream->packed;
    if (!reserve_packed(packed) || bytes > packed->room - packed->used)
        return NULL;
    char *memory = packed->start + packed->used;
    if (!take_pages(stream, memory, bytes))
        return NULL;
    packed->used += bytes;
    packed->n_pieces++;
    return memory;
}

static void free_packed(struct packed *packed)
{
    if (--packed->n_pieces > 0)
        return;
    CHECK(madvise(packed->start, packed->used, MADV_DONTNEED) == 0);
    packed->used = 0;
}

enum status stream_create_on_path(struct stream **out, const struct stream_options *options,
                                  enum code_path path, struct error *err)
{
    *out = NULL;
    if (!code_path_available(path))
        return error_set(err, STATUS_UNSUPPORTED, "this machine does not have the code path '%s'",
                         code_path_name(path));
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return error_set(err, STATUS_NOMEM, "cannot allocate a stream");
    stream->path = path;
    stream->n_threads = options->n_threads;
    enum status st = pool_create(&stream->pool, options, err);
    if (st == STATUS_OK && options->device == DEVICE_CUDA)
        st = cuda_device_open(&stream->device, options->device_index, err);
    if (st != STATUS_OK) {
        stream_destroy(stream);
        return st;
    }
    *out = stream;
    return STATUS_OK;
}

enum status stream_create(struct stream **out, const struct stream_options *options,
                          struct error *err)
{
    enum code_path path;
    *out = NULL;
    enum status st = code_path_pick(&path, err);
    return st == STATUS_OK ? stream_create_on_path(out, options, path, err) : st;
}

void stream_destroy(struct stream *stream)
{
    if (!stream)
        return;
    pool_destroy(stream->pool);
    for (int i = 0; i < STREAM_THREADS_MAX; i++)
        host_free(stream->scratch[i].memory, stream->scratch[i].bytes);
    if (stream->packed.start)
        CHECK(munmap(stream->packed.start, stream->packed.room) == 0);
    if (stream->device)
        stream->device->operations->close(stream->device);
    free(stream);
}

int stream_n_threads(const struct stream *stream)
{
    return stream->n_threads;
}

enum code_path stream_code_path(const struct stream *stream)
{
    return stream->path;
}

const char *stream_path_name(const struct stream *stream)
{
    return stream->device ? stream->device->operations->path(stream->device)
                          : code_path_name(stream->path);
}

const char *stream_device_name(const struct stream *stream)
{
    return stream->device ? "cuda" : "cpu";
}

bool stream_room(const struct stream *stream, size_t *free_bytes, size_t *total_bytes)
{
    if (stream->device)
        stream->device->operations->room(stream->device, free_bytes, total_bytes);
    return stream->device != NULL;
}

struct device *stream_device(const struct stream *stream)
{
    return stream->device;
}

enum status stream_alloc(struct stream *stream, void **out, size_t bytes, struct error *err)
{
    if (stream->device)
        return stream->device->operations->alloc(stream->device, out, bytes, err);
    return host_alloc(stream, out, bytes, err);
}

enum status stream_alloc_packed(struct stream *stream, void **out, size_t bytes, struct error *err)
{
    bool is_large = bytes >= MAPPED_FROM_BYTES && bytes <= SIZE_MAX / 2;
    *out = is_large && !stream->device ? take_packed(stream, mapped_bytes(bytes)) : NULL;
    return *out ? STATUS_OK : stream_alloc(stream, out, bytes, err);
}

void stream_free(struct stream *stream, void *memory, size_t bytes)
{
    if (memory && stream->device)
        stream->device->operations->free(stream->device, memory, bytes);
    else if (memory && is_packed(&stream->packed, memory))
        free_packed(&stream->packed);
    else
        host_free(memory, bytes);
}

void stream_upload(struct stream *stream, void *device, const void *host, size_t bytes)
{
    if (stream->device)
        stream->device->operations->upload(stream->device, device, host, bytes);
    else
        memcpy(device, host, bytes);
}

void stream_download(struct stream *stream, void *host, const void *device, size_t bytes)
{
    if (stream->device)
        stream->device->operations->download(stream->device, host, device, bytes);
    else
        memcpy(host, device, bytes);
}

void stream_copy(struct stream *stream, void *to, const void *from, size_t bytes)
{
    if (stream->device)
        stream->device->operations->copy(stream->device, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

enum status stream_wait(struct stream *stream, struct error *err)
{
    return stream->device ? stream->device->operations->wait(stream->device, err) : STATUS_OK;
}

enum status stream_replay(struct stream *stream, const void *owner, uint64_t key, stream_work work,
                          void *context)
{
    struct device *device = stream->device;
    return device ? device->operations->replay(device, owner, key, work, context) : work(context);
}

void stream_forget(struct stream *stream, const void *owner)
{
    if (stream->device)
        stream->device->operations->forget(stream->device, owner);
}

uint64_t stream_n_replays(const struct stream *stream)
{
    return stream->device ? stream->device->operations->n_replays(stream->device) : 0;
}

size_t stream_recording_bytes(const struct stream *stream)
{
    return stream->device ? stream->device->operations->recording_bytes(stream->device) : 0;
}

size_t stream_held_bytes(const struct stream *stream)
{
    return stream->device ? stream->device->operations->held_bytes(stream->device) : 0;
}

size_t stream_workspace_bytes(const struct stream *stream)
{
    return stream->device ? stream->device->operations->workspace_bytes(stream->device) : 0;
}

void stream_parallel(struct stream *stream, stream_task task, void *context)
{
    pool_run(stream->pool, task, context);
}

void *stream_scratch(struct stream *stream, int thread_index, size_t bytes)
{
    struct scratch *scratch = &stream->scratch[thread_index];
    if (scratch->bytes < bytes) {
        host_free(scratch->memory, scratch->bytes);
        scratch->bytes = 0;
        size_t grown = bytes + bytes / 2;
        if (host_alloc(NULL, &scratch->memory, grown, NULL) != STATUS_OK)
            return NULL;
        scratch->bytes = grown;
    }
    return scratch->memory;
}
