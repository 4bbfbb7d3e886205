/*
 * internal.h - what the files of the simulated device share.
 */
#ifndef MGPT_SIMGPU_INTERNAL_H
#define MGPT_SIMGPU_INTERNAL_H

#include <deque>
#include <string>
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
    std::deque<std::function<bool()>> works; /* each says whether it is done */
    bool runs = false;
    simgpu_graph *recording = nullptr; /* work goes there instead */
};

namespace simgpu
{

/* ---- memory.cpp ---- */

/* Device memory can be touched only while the device works: outside it is closed to the host. */
void memory_open();
void memory_close();
/* The bytes lie in one allocation; ends the program otherwise. */
void memory_check(const void *from, size_t bytes, const char *what);
/* Fills a red zone: 0xf1 at even addresses, 0xff at odd ones, so that whatever reads it gets a NaN that no device writes. */
void red_fill(void *start, size_t bytes);
/* No red zone was written; ends the program otherwise, naming `after`. */
void memory_check_red_zones(const char *after);

/* Device memory that the runtime takes for itself, beside allocations; false: there is not so much. */
bool memory_take(size_t bytes);
void memory_give(size_t bytes);

/* Pinned host memory, which the device reads and writes when its turn comes. */
bool memory_is_pinned(const void *from, size_t bytes);

/* ---- graph.cpp ---- */

/* Ends the program while a stream is recorded: what is not launched into the stream would be missing in the graph. */
void graph_forbid(const char *what);

/* ---- queue.cpp ---- */

/* Work runs in order when somebody waits, or asks for an event. */
void queue_add(cudaStream_t stream, std::function<void()> work);
void queue_run(cudaStream_t stream);

/*
 * Work that may have to wait for others: called again until it says that it is done. It goes on while other queues of
 * this process run, and whenever somebody asks for an event.
 */
void queue_add_waiting(cudaStream_t stream, std::function<bool()> work);
int current_device();

/* ---- block.cpp ---- */

void run_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body);
const char *kernel_name(); /* of the kernel that runs */

/* An integer of the environment, or `otherwise`. */
long setting(const char *name, long otherwise);

/* Of a list "A,B": what that device shall have; the last is for all that follow. */
std::string setting_of_device(const char *name, const char *otherwise, int device);

} // namespace simgpu

#endif
