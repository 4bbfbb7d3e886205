/*
 * internal.h - what the files of the simulated device share.
 */
#ifndef MGPT_SIMGPU_INTERNAL_H
#define MGPT_SIMGPU_INTERNAL_H

#include <deque>
#include <vector>

#include "cuda_runtime.h"

namespace simgpu
{

enum { SHARED_BYTES_DEFAULT = 48 << 10, SHARED_BYTES_MAX = 163 << 10, BLOCK_THREADS_MAX = 1024 };

} // namespace simgpu

struct simgpu_graph {
    std::vector<std::function<void()>> works;
};

/* A stream. */
struct simgpu_queue {
    std::deque<std::function<void()>> works;
    simgpu_graph *recording; /* work goes there instead */
};

namespace simgpu
{

/* ---- memory.cpp ---- */

/* Device memory can be touched only while the device works: outside it is closed to the host. */
void memory_open();
void memory_close();
/* The bytes lie in one allocation; ends the program otherwise. */
void memory_check(const void *from, size_t bytes, const char *what);
/* No red zone was written; ends the program otherwise, naming `after`. */
void memory_check_red_zones(const char *after);

/* Pinned host memory, which the device reads and writes when its turn comes. */
bool memory_is_pinned(const void *from, size_t bytes);

/* ---- graph.cpp ---- */

/* Ends the program while a stream is recorded: what is not launched into the stream would be missing in the graph. */
void graph_forbid(const char *what);

/* ---- queue.cpp ---- */

/* Work runs in order when somebody waits. */
void queue_add(cudaStream_t stream, std::function<void()> work);
void queue_run(cudaStream_t stream);

/* ---- block.cpp ---- */

void run_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body);
const char *kernel_name(); /* of the kernel that runs */

/* An integer of the environment, or `otherwise`. */
long setting(const char *name, long otherwise);

} // namespace simgpu

#endif
