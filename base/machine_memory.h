/*
 * machine_memory.h - memory of this machine, as the system tells it.
 */
#ifndef MGPT_BASE_MACHINE_MEMORY_H
#define MGPT_BASE_MACHINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* What programs could still take without swapping (MemAvailable), and all there is; false: the
 * system does not tell. */
bool machine_memory(size_t *free_bytes, size_t *total_bytes);

#endif
