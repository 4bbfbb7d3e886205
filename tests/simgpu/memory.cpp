/*
 * memory.cpp - device memory: one range of addresses, allocations between red zones; with SIMGPU_PROTECT=1 closed to the
 * host while no device work runs (slow with much memory: the tests of kernels switch it on).
 *
 * New memory holds NaN bytes (its first MiB: pages that nobody uses cost nothing), freed memory and red zones a pattern
 * that is NaN to whoever reads it; red zones are looked at after every kernel. The address sanitizer, where it is built
 * in, sees each single access to them.
 */
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sys/mman.h>

#include "internal.h"
#include "simgpu_counters.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(address, bytes) __asan_poison_memory_region(address, bytes)
#define UNPOISON(address, bytes) __asan_unpoison_memory_region(address, bytes)
#define SEEN_BY_SANITIZER 1
#else
#define POISON(address, bytes) ((void)(address), (void)(bytes))
#define UNPOISON(address, bytes) ((void)(address), (void)(bytes))
#define SEEN_BY_SANITIZER 0
#endif

namespace simgpu
{

namespace
{

enum { RED_ZONE_BYTES = 256, ALIGNMENT = 256, LARGE_PAGE_BYTES = 2 << 20, NAN_BYTE = 0xff, FILL_BYTES_MAX = 1 << 20 };
const size_t ARENA_BYTES = (size_t)64 << 30;

struct arena {
    char *start;
    size_t opened_bytes;             /* the front part that has been used */
    std::map<char *, size_t> blocks; /* allocations by address */
    size_t used_bytes;
    size_t n_allocations; /* ever, pinned ones counted */
    bool is_open;
};

arena memory;
std::map<char *, size_t> pinned; /* allocations by address */

size_t capacity()
{
    return (size_t)strtoul(setting_of_device("SIMGPU_MEMORY_MB", "8192", current_device()).c_str(), nullptr, 0) << 20;
}

size_t round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

bool is_protected()
{
    static const bool is_on = setting("SIMGPU_PROTECT", 0) != 0;
    return is_on;
}

void reserve()
{
    if (memory.start)
        return;
    void *start = mmap(nullptr, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        stop("no addresses for the device's memory");
    memory.start = (char *)round_up((size_t)start, LARGE_PAGE_BYTES);
    if (is_protected())
        madvise(memory.start, ARENA_BYTES - LARGE_PAGE_BYTES, MADV_HUGEPAGE); /* the fewer pages, the faster it opens and closes */
}

/* The first gap that is large enough, red zones on both sides included. */
char *find_gap(size_t bytes)
{
    char *at = memory.start + RED_ZONE_BYTES;
    for (auto &block : memory.blocks) {
        if (at + bytes + RED_ZONE_BYTES <= block.first - RED_ZONE_BYTES)
            return at;
        at = block.first + round_up(block.second, ALIGNMENT) + 2 * RED_ZONE_BYTES;
    }
    return at + bytes + RED_ZONE_BYTES <= memory.start + ARENA_BYTES - LARGE_PAGE_BYTES ? at : nullptr;
}

void protect(int mode)
{
    if (memory.opened_bytes && mprotect(memory.start, memory.opened_bytes, mode) != 0)
        stop("cannot open or close the device's memory");
}

void paint_red(char *start, size_t bytes)
{
    if (SEEN_BY_SANITIZER)
        POISON(start, bytes);
    else
        red_fill(start, bytes);
}

size_t tail_bytes(size_t bytes)
{
    return round_up(bytes, ALIGNMENT) - bytes + RED_ZONE_BYTES;
}

/* A tail is shorter than two red zones. */
bool is_red(const char *start, size_t bytes)
{
    static char red[2 * RED_ZONE_BYTES + 1];
    if (!red[0])
        red_fill(red, sizeof(red));
    return memcmp(start, red + ((uintptr_t)start ^ (uintptr_t)red) % 2, bytes) == 0;
}

} // namespace

void red_fill(void *start, size_t bytes)
{
    unsigned char *at = (unsigned char *)start, *end = at + bytes;
    const uint16_t pair = 0xfff1;
    if ((uintptr_t)at % 2 && at < end)
        *at++ = pair >> 8;
    for (; at + 2 <= end; at += 2)
        memcpy(at, &pair, 2);
    if (at < end)
        *at = pair & 0xff;
}

long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, nullptr, 0) : otherwise;
}

/* Open for ever without protection: then the first call alone does something. */
void memory_open()
{
    if (!memory.is_open)
        protect(PROT_READ | PROT_WRITE);
    memory.is_open = true;
}

void memory_close()
{
    if (!is_protected())
        return;
    if (memory.is_open)
        protect(PROT_NONE);
    memory.is_open = false;
}

void memory_check(const void *from, size_t bytes, const char *what)
{
    char *start = (char *)from;
    auto next = memory.blocks.upper_bound(start);
    if (next != memory.blocks.begin()) {
        auto block = std::prev(next);
        if (start + bytes <= block->first + block->second)
            return;
    }
    stop("%s of %zu bytes is not inside one allocation of the device", what, bytes);
}

void memory_check_red_zones(const char *after)
{
    if (SEEN_BY_SANITIZER)
        return;
    for (auto &block : memory.blocks)
        if (!is_red(block.first - RED_ZONE_BYTES, RED_ZONE_BYTES) ||
            !is_red(block.first + block.second, tail_bytes(block.second)))
            stop("'%s' wrote outside an allocation of %zu bytes", after, block.second);
}

bool memory_take(size_t bytes)
{
    if (bytes > capacity() - memory.used_bytes)
        return false;
    memory.used_bytes += bytes;
    return true;
}

void memory_give(size_t bytes)
{
    memory.used_bytes -= bytes;
}

bool memory_is_pinned(const void *from, size_t bytes)
{
    char *start = (char *)from;
    auto next = pinned.upper_bound(start);
    if (next == pinned.begin())
        return false;
    auto block = std::prev(next);
    return start + bytes <= block->first + block->second;
}

} // namespace simgpu

using namespace simgpu;

extern "C" size_t simgpu_n_allocations(void)
{
    return memory.n_allocations;
}

/* With SIMGPU_SAY_ALLOCATIONS=1 each is told, so that a test of whole programs sees late ones. */
static void count_allocation(const char *what, size_t bytes)
{
    static const bool is_told = setting("SIMGPU_SAY_ALLOCATIONS", 0) != 0;
    memory.n_allocations++;
    if (is_told)
        fprintf(stderr, "simgpu: %s of %zu bytes\n", what, bytes);
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    graph_forbid("cudaMallocHost");
    count_allocation("cudaMallocHost", bytes);
    *out = malloc(bytes);
    if (!*out)
        return cudaErrorMemoryAllocation;
    pinned[(char *)*out] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *freed)
{
    if (freed && !pinned.erase((char *)freed))
        stop("freed what is no pinned memory");
    free(freed);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = capacity();
    *free_bytes = capacity() - memory.used_bytes;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    graph_forbid("cudaMalloc");
    count_allocation("cudaMalloc", bytes);
    reserve();
    *out = nullptr;
    if (bytes > capacity() - memory.used_bytes)
        return cudaErrorMemoryAllocation;
    char *start = find_gap(round_up(bytes, ALIGNMENT));
    if (!start)
        return cudaErrorMemoryAllocation;
    bool was_open = memory.is_open;
    size_t end = (size_t)(start - memory.start) + bytes + tail_bytes(bytes);
    memory_open();
    if (end > memory.opened_bytes) {
        memory.opened_bytes = round_up(end, LARGE_PAGE_BYTES);
        protect(PROT_READ | PROT_WRITE);
    }
    UNPOISON(start, bytes);
    memset(start, NAN_BYTE, bytes < FILL_BYTES_MAX ? bytes : (size_t)FILL_BYTES_MAX);
    paint_red(start - RED_ZONE_BYTES, RED_ZONE_BYTES);
    paint_red(start + bytes, tail_bytes(bytes));
    if (!was_open)
        memory_close();
    memory.blocks[start] = bytes;
    memory.used_bytes += bytes;
    *out = start;
    return cudaSuccess;
}

cudaError_t cudaFree(void *freed)
{
    if (!freed)
        return cudaSuccess;
    graph_forbid("cudaFree");
    auto block = memory.blocks.find((char *)freed);
    if (block == memory.blocks.end())
        stop("freed what is no allocation of the device");
    memory_open();
    memory_check_red_zones("cudaFree");
    paint_red(block->first, block->second);
    memory_close();
    memory.used_bytes -= block->second;
    memory.blocks.erase(block);
    return cudaSuccess;
}
