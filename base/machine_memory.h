/*
 * machine_memory.h - memory that this process may still take, as the system tells it.
 */
#ifndef MGPT_BASE_MACHINE_MEMORY_H
#define MGPT_BASE_MACHINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/*
 * What could still be taken without swapping (MemAvailable), and all there is; of a container the
 * room left below its limit, where that is less (memory controllers of both cgroup versions, limits
 * of the groups above included). false: the system does not tell.
 */
bool machine_memory(size_t *free_bytes, size_t *total_bytes);

/* The same where /proc and /sys lie in the folder `root`. */
bool machine_memory_at(const char *root, size_t *free_bytes, size_t *total_bytes);

#endif
