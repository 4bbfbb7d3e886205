/*
 * machine_memory.c - reads /proc/meminfo.
 */
#include "base/machine_memory.h"

#include <stdio.h>

bool machine_memory(size_t *free_bytes, size_t *total_bytes)
{
    char line[256];
    unsigned long long kilobytes;
    *free_bytes = *total_bytes = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && (*free_bytes == 0 || *total_bytes == 0) && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "MemTotal: %llu kB", &kilobytes) == 1)
            *total_bytes = (size_t)kilobytes * 1024;
        if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1)
            *free_bytes = (size_t)kilobytes * 1024;
    }
    if (file)
        fclose(file);
    return *free_bytes > 0 && *total_bytes > 0;
}
