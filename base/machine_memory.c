/*
 * machine_memory.c - reads /proc/meminfo, /proc/self/cgroup and the limits of the groups named
 * there.
 *
 * A group's page cache counts as used, but the part that nobody used lately (inactive_file) is
 * given up before anything fails.
 */
#include "base/machine_memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = PATH_MAX + 64 };

/* Where the two versions keep the same three numbers. */
struct controller {
    const char *folder, *limit, *used, *cache;
};
static const struct controller unified = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                          "inactive_file %" SCNu64};
static const struct controller separate = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                           "memory.usage_in_bytes", "total_inactive_file %" SCNu64};

static FILE *open_at(const char *root, const char *path)
{
    char whole[LINE_BYTES + PATH_MAX];
    snprintf(whole, sizeof(whole), "%s%s", root, path);
    return fopen(whole, "re");
}

/* The number on the first line of the form `format`; false: no such file or line ("max"). */
static bool read_number(uint64_t *out, const char *root, const char *folder, const char *group,
                        const char *name, const char *format)
{
    char path[LINE_BYTES + 64], line[256];
    snprintf(path, sizeof(path), "%s%s/%s", folder, group, name);
    FILE *file = open_at(root, path);
    bool found = false;
    while (file && !found && fgets(line, sizeof(line), file))
        found = sscanf(line, format, out) == 1;
    if (file)
        fclose(file);
    return found;
}

static void limit_by_group(const struct controller *c, const char *root, const char *group,
                           size_t *free_bytes, size_t *total_bytes)
{
    uint64_t limit, used, cache = 0;
    if (!read_number(&limit, root, c->folder, group, c->limit, "%" SCNu64) ||
        !read_number(&used, root, c->folder, group, c->used, "%" SCNu64))
        return;
    read_number(&cache, root, c->folder, group, "memory.stat", c->cache);
    used = used > cache ? used - cache : 0;
    uint64_t left = limit > used ? limit - used : 0;
    if (limit < *total_bytes)
        *total_bytes = limit;
    if (left < *free_bytes)
        *free_bytes = left;
}

/* `group` and those above it; is cut short meanwhile. */
static void limit_by_groups(const struct controller *c, const char *root, char *group,
                            size_t *free_bytes, size_t *total_bytes)
{
    for (;;) {
        limit_by_group(c, root, group, free_bytes, total_bytes);
        char *last = strrchr(group, '/');
        if (!last)
            return;
        *last = '\0';
    }
}

static void limit_by_container(const char *root, size_t *free_bytes, size_t *total_bytes)
{
    char line[LINE_BYTES];
    FILE *file = open_at(root, "/proc/self/cgroup");
    while (file && fgets(line, sizeof(line), file)) { /* "4:memory:/group", "0::/group" */
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        if (names[1] == '\0')
            limit_by_groups(&unified, root, group, free_bytes, total_bytes);
        else if (strcmp(names + 1, "memory") == 0)
            limit_by_groups(&separate, root, group, free_bytes, total_bytes);
    }
    if (file)
        fclose(file);
}

bool machine_memory_at(const char *root, size_t *free_bytes, size_t *total_bytes)
{
    uint64_t available, total;
    *free_bytes = *total_bytes = 0;
    if (!read_number(&total, root, "/proc", "", "meminfo", "MemTotal: %" SCNu64 " kB") ||
        !read_number(&available, root, "/proc", "", "meminfo", "MemAvailable: %" SCNu64 " kB"))
        return false;
    *total_bytes = (size_t)total * 1024;
    *free_bytes = (size_t)available * 1024;
    limit_by_container(root, free_bytes, total_bytes);
    return true;
}

bool machine_memory(size_t *free_bytes, size_t *total_bytes)
{
    return machine_memory_at("", free_bytes, total_bytes);
}
