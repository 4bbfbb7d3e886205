/*
 * queue.cpp - streams, events and the rest of the runtime. Work waits in a list until somebody waits for it, so that
 * results taken too early are old ones. Queues with transfers in them go on between the works of others.
 */
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <unistd.h>

#include "internal.h"

struct simgpu_event {
    cudaStream_t stream;
    std::shared_ptr<bool> reached; /* NULL: never recorded */
};

namespace simgpu
{

namespace
{

enum { WAIT_US = 50 };

size_t shared_limit = SHARED_BYTES_DEFAULT;
int device_of_thread;
std::set<cudaStream_t> waiting; /* queues with work of queue_add_waiting() in them */

int n_devices()
{
    return (int)setting("SIMGPU_DEVICES", 8);
}

} // namespace

void stop(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "simgpu: %s\n", text);
    abort();
}

int current_device()
{
    return device_of_thread;
}

static void check_stream(cudaStream_t stream)
{
    if (!stream)
        stop("the default stream is not modelled");
}

std::string setting_of_device(const char *name, const char *otherwise, int device)
{
    const char *text = getenv(name);
    std::string list = text && *text ? text : otherwise;
    for (int i = 0; i < device && list.find(',') != std::string::npos; i++)
        list = list.substr(list.find(',') + 1);
    return list.substr(0, list.find(','));
}

void queue_add(cudaStream_t stream, std::function<void()> work)
{
    check_stream(stream);
    if (stream->recording) {
        stream->recording->works.push_back(std::move(work));
        return;
    }
    stream->works.push_back([work] {
        work();
        return true;
    });
}

void queue_add_waiting(cudaStream_t stream, std::function<bool()> work)
{
    check_stream(stream);
    graph_forbid("work that waits for others");
    stream->works.push_back(std::move(work));
    waiting.insert(stream);
}

static void go_on(cudaStream_t stream);

static void go_on_with_others(cudaStream_t stream)
{
    std::set<cudaStream_t> others = waiting;
    others.erase(stream);
    for (cudaStream_t other : others)
        go_on(other);
}

/* Runs what can run now. */
static void go_on(cudaStream_t stream)
{
    static int depth; /* of queues that run while another does */
    if (stream->runs)
        return;
    stream->runs = true;
    if (depth++ == 0)
        memory_open();
    while (!stream->works.empty() && stream->works.front()()) {
        stream->works.pop_front();
        go_on_with_others(stream);
    }
    if (stream->works.empty())
        waiting.erase(stream);
    stream->runs = false;
    if (--depth == 0)
        memory_close();
}

void queue_run(cudaStream_t stream)
{
    check_stream(stream);
    graph_forbid("waiting for a stream");
    for (;;) {
        go_on(stream);
        if (stream->works.empty())
            return;
        go_on_with_others(stream);
        usleep(WAIT_US); /* for another process */
    }
}

void enqueue_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                    std::function<void()> body)
{
    const unsigned sides_max = 65535;
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > sides_max || grid.z > sides_max || block.x < 1 ||
        block.y != 1 || block.z != 1 || block.x > BLOCK_THREADS_MAX || block.x % WARP_LANES)
        stop("'%s': a grid of %ux%ux%u and blocks of %ux%ux%u are not modelled", name, grid.x, grid.y, grid.z, block.x,
             block.y, block.z);
    if (shared_bytes > shared_limit)
        stop("'%s': %zu bytes of shared memory, allowed are %zu", name, shared_bytes, shared_limit);
    queue_add(stream, [=] {
        run_kernel(name, grid, block, shared_bytes, body);
        memory_check_red_zones(name);
    });
}

} // namespace simgpu

using namespace simgpu;

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    default: return "invalid argument";
    }
}

cudaError_t cudaGetLastError()
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = n_devices();
    if (*count < 0)
        return cudaErrorInsufficientDriver; /* SIMGPU_DEVICES=-1: a machine without a driver */
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    if (device < 0 || device >= n_devices())
        return cudaErrorInvalidDevice;
    size_t free_bytes;
    memset(properties, 0, sizeof(*properties));
    snprintf(properties->name, sizeof(properties->name), "simulated device");
    std::string capability = setting_of_device("SIMGPU_CAPABILITY", "8.0", device);
    if (sscanf(capability.c_str(), "%d.%d", &properties->major, &properties->minor) != 2)
        stop("SIMGPU_CAPABILITY: '%s', expected a version as 8.0", capability.c_str());
    properties->multiProcessorCount = 1;
    return cudaMemGetInfo(&free_bytes, &properties->totalGlobalMem);
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= n_devices())
        return cudaErrorInvalidDevice;
    device_of_thread = device;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t simgpu_set_shared_limit(size_t bytes)
{
    if (bytes > SHARED_BYTES_MAX)
        return cudaErrorInvalidValue;
    shared_limit = bytes > shared_limit ? bytes : shared_limit;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    if (flags != cudaStreamNonBlocking)
        stop("streams with flags %u are not modelled", flags);
    *out = new simgpu_queue{};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    queue_run(stream);
    waiting.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    queue_run(stream);
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    if (flags != cudaEventDisableTiming)
        stop("events with flags %u are not modelled", flags);
    *out = new simgpu_event{};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    graph_forbid("an event");
    auto reached = std::make_shared<bool>(false);
    event->stream = stream;
    event->reached = reached;
    queue_add(stream, [reached] { *reached = true; });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    graph_forbid("asking for an event");
    if (!event->reached || *event->reached)
        return cudaSuccess;
    go_on(event->stream);
    return *event->reached ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    if (flags != 0)
        stop("waits for events with flags %u are not modelled", flags);
    if (!event->reached)
        return cudaSuccess;
    auto reached = event->reached;
    cudaStream_t other = event->stream;
    queue_add_waiting(stream, [reached, other] {
        if (!*reached)
            go_on(other);
        return *reached;
    });
    return cudaSuccess;
}

/*
 * From ordinary host memory the runtime has taken the bytes when it returns; to it, they have arrived. Pinned memory is
 * read and written when the copy's turn comes.
 */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    if (bytes == 0)
        return cudaSuccess;
    if (kind != cudaMemcpyDeviceToDevice)
        graph_forbid("a copy between host and device");
    if (kind == cudaMemcpyDeviceToHost) {
        memory_check(from, bytes, "a copy to the host");
        if (memory_is_pinned(to, bytes)) {
            queue_add(stream, [=] { memcpy(to, from, bytes); });
            return cudaSuccess;
        }
        queue_run(stream);
        memory_open();
        memcpy(to, from, bytes);
        memory_close();
        return cudaSuccess;
    }
    memory_check(to, bytes, "a copy to the device");
    if (kind == cudaMemcpyDeviceToDevice) {
        memory_check(from, bytes, "a copy from the device");
        queue_add(stream, [=] { memcpy(to, from, bytes); });
        return cudaSuccess;
    }
    if (memory_is_pinned(from, bytes)) {
        queue_add(stream, [=] { memcpy(to, from, bytes); });
        return cudaSuccess;
    }
    auto taken = std::make_shared<std::string>((const char *)from, bytes);
    queue_add(stream, [=] { memcpy(to, taken->data(), bytes); });
    if (bytes > 1 << 20)
        queue_run(stream); /* large ones are not kept twice */
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    memory_check(to, bytes, "a memset");
    queue_add(stream, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}
