/*
 * graph.cpp - graphs: the launches between the two ends of a capture, with the arguments they had then, run again as often as
 * the graph is launched. While a stream is recorded nothing but launches into it is modelled.
 */
#include <cstdlib>

#include "internal.h"

struct simgpu_graph_exec {
    std::vector<std::function<void()>> works;
    size_t bytes; /* of device memory: 0 before the upload */
};

using namespace simgpu;

namespace
{

enum { NODE_BYTES = 2048 }; /* of device memory, for each launch of an uploaded graph */

int n_recorded; /* streams that are being recorded */

} // namespace

namespace simgpu
{

void graph_forbid(const char *what)
{
    if (n_recorded > 0)
        stop("%s while a stream is recorded", what);
}

} // namespace simgpu

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    if (!stream || mode != cudaStreamCaptureModeThreadLocal)
        stop("recording a stream in mode %d is not modelled", (int)mode);
    if (stream->recording)
        return cudaErrorInvalidValue;
    stream->recording = new simgpu_graph{};
    n_recorded++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    if (!stream->recording)
        stop("the end of a recording that was not begun");
    *out = stream->recording;
    stream->recording = nullptr;
    n_recorded--;
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    if (nodes)
        stop("the nodes of a graph are not modelled, their number is");
    *n = graph->works.size();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    graph_forbid("cudaGraphInstantiate");
    if (flags)
        stop("graphs with flags %llx are not modelled", flags);
    *out = new simgpu_graph_exec{graph->works, 0};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t)
{
    graph_forbid("cudaGraphUpload");
    const size_t fixed_bytes = (size_t)setting("SIMGPU_GRAPH_MB", 0) << 20;
    size_t bytes = fixed_bytes ? fixed_bytes : graph->works.size() * NODE_BYTES;
    if (graph->bytes == 0 && !memory_take(bytes))
        return cudaErrorMemoryAllocation;
    graph->bytes = bytes;
    return cudaSuccess;
}

/* The graph may be destroyed while it is under way: each launch has its own list. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    if (stream->recording)
        stop("a graph inside a graph is not modelled");
    if (graph->bytes == 0 && !graph->works.empty())
        stop("the first launch of a graph that was not uploaded would take device memory");
    for (const auto &work : graph->works)
        queue_add(stream, work);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    memory_give(graph->bytes);
    delete graph;
    return cudaSuccess;
}
