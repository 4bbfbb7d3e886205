/*
 * simgpu_counters.h - what tests in C may ask the simulated device.
 */
#ifndef MGPT_SIMGPU_COUNTERS_H
#define MGPT_SIMGPU_COUNTERS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Calls of cudaMalloc and cudaMallocHost since the program began. */
size_t simgpu_n_allocations(void);

#ifdef __cplusplus
}
#endif

#endif
