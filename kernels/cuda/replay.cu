/*
 * replay.cu - launches that come again and again, recorded as a CUDA graph: one launch instead of ten a layer.
 *
 * The first time a key comes its work runs as it is, so that whatever is loaded or chosen at a first use is; the second
 * time it is recorded, from then on replayed. What cannot be recorded runs as it is for ever, as does what comes when graphs
 * hold CUDA_GRAPHS_BYTES of device memory.
 */
#include "kernels/cuda/cuda.cuh"

extern "C" {
#include "base/log.h"
}

#include <stdlib.h>

enum {
    REPLAYS_MAX = 128,
    GRAPH_NODE_BYTES = 1024,      /* what a launch counts at least: its arguments and the way to it */
    GRAPH_BYTES_MAX = 32 << 20 /* more cannot be one graph's: another process took memory meanwhile */
};

struct replay {
    const void *owner;
    uint64_t key;
    cudaGraphExec_t graph; /* NULL: not recorded */
    size_t bytes;          /* that the graph counts */
    bool is_refused;
};

struct replays {
    struct replay items[REPLAYS_MAX];
    int n;
    bool is_off, is_full; /* is_full: the next graph might pass CUDA_GRAPHS_BYTES */
    size_t bytes, largest_bytes; /* of all graphs, of one */
    uint64_t n_launched;
};

enum status replays_create(struct cuda_device *cuda, struct error *err)
{
    const char *mode = getenv("MGPT_CUDA_GRAPHS");
    cuda->replays = (struct replays *)calloc(1, sizeof(*cuda->replays));
    if (!cuda->replays)
        return error_set(err, STATUS_NOMEM, "cannot allocate the list of graphs");
    cuda->replays->is_off = mode && strcmp(mode, "off") == 0;
    if (mode && *mode && strcmp(mode, "off") != 0 && strcmp(mode, "on") != 0)
        return error_set(err, STATUS_INVALID, "MGPT_CUDA_GRAPHS=%s: expected on or off", mode);
    return STATUS_OK;
}

static void end(struct cuda_device *cuda, struct replay *replay)
{
    if (replay->graph)
        cuda_note(cuda, cudaGraphExecDestroy(replay->graph), "the end of a graph");
    cuda->replays->bytes -= replay->bytes;
    cuda->replays->is_full = false;
}

void forget_cuda(struct device *device, const void *owner)
{
    struct cuda_device *cuda = cuda_of(device);
    struct replays *replays = cuda->replays;
    int n_kept = 0;
    cuda_synchronise(cuda, "work before graphs are freed");
    for (int i = 0; i < replays->n; i++)
        if (replays->items[i].owner == owner)
            end(cuda, &replays->items[i]);
        else
            replays->items[n_kept++] = replays->items[i];
    replays->n = n_kept;
}

void replays_destroy(struct cuda_device *cuda)
{
    for (int i = 0; cuda->replays && i < cuda->replays->n; i++)
        end(cuda, &cuda->replays->items[i]);
    free(cuda->replays);
}

uint64_t n_replays_cuda(const struct device *device)
{
    return ((const struct cuda_device *)device)->replays->n_launched;
}

size_t recording_bytes_cuda(const struct device *device)
{
    return ((const struct cuda_device *)device)->replays->is_off ? 0 : CUDA_GRAPHS_BYTES;
}

/* NULL: the list is full, or the key came for the first time. */
static struct replay *find(struct replays *replays, const void *owner, uint64_t key)
{
    for (int i = 0; i < replays->n; i++)
        if (replays->items[i].owner == owner && replays->items[i].key == key)
            return &replays->items[i];
    if (replays->n < REPLAYS_MAX)
        replays->items[replays->n++] = replay{owner, key, NULL, 0, false};
    return NULL;
}

/* The upload is part of it, so that the first launch takes no memory. */
static cudaError_t instantiate(struct cuda_device *cuda, struct replay *replay, cudaGraph_t graph)
{
    struct replays *replays = cuda->replays;
    size_t n_nodes = 0, before = 0, after = 0, total;
    cudaMemGetInfo(&before, &total);
    cudaError_t error = cudaGraphGetNodes(graph, NULL, &n_nodes);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&replay->graph, graph, 0);
    if (error == cudaSuccess)
        error = cudaGraphUpload(replay->graph, cuda->stream);
    cudaMemGetInfo(&after, &total);
    if (error != cudaSuccess)
        return error;
    size_t taken = before > after && before - after <= GRAPH_BYTES_MAX ? before - after : 0;
    size_t least = n_nodes * GRAPH_NODE_BYTES;
    replay->bytes = taken > least ? taken : least;
    replays->bytes += replay->bytes;
    if (replay->bytes > replays->largest_bytes)
        replays->largest_bytes = replay->bytes;
    log_info("worker", "recorded a graph key=%llx kernels=%zu device_bytes=%zu all_bytes=%zu limit_bytes=%d",
             (unsigned long long)replay->key, n_nodes, replay->bytes, replays->bytes, CUDA_GRAPHS_BYTES);
    return cudaSuccess;
}

/* Whether one more graph as large as the largest stays within the limit; said once when it does not. */
static bool has_room(struct replays *replays)
{
    if (replays->bytes + replays->largest_bytes <= CUDA_GRAPHS_BYTES)
        return true;
    if (!replays->is_full)
        log_warn("worker", "no more graphs are recorded all_bytes=%zu limit_bytes=%d", replays->bytes,
                 CUDA_GRAPHS_BYTES);
    replays->is_full = true;
    return false;
}

/* Records what work(context) launches; nothing of it runs. */
static enum status record(struct cuda_device *cuda, struct replay *replay, stream_work work, void *context)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal);
    if (error == cudaSuccess) {
        cuda->is_recording = true;
        enum status st = work(context);
        cuda->is_recording = false;
        error = cudaStreamEndCapture(cuda->stream, &graph);
        if (error == cudaSuccess && st != STATUS_OK) {
            cudaGraphDestroy(graph);
            return st;
        }
    }
    if (error == cudaSuccess)
        error = instantiate(cuda, replay, graph);
    if (graph)
        cudaGraphDestroy(graph);
    if (error == cudaSuccess)
        return STATUS_OK;
    log_warn("worker", "cannot record a graph, steps of its kind run without key=%llx reason=\"%s\"",
             (unsigned long long)replay->key, cudaGetErrorString(error));
    cudaGetLastError();
    cuda->failure = cudaSuccess; /* what failed was not run */
    if (replay->graph)
        cudaGraphExecDestroy(replay->graph);
    replay->graph = NULL;
    replay->is_refused = true;
    return STATUS_OK;
}

enum status replay_cuda(struct device *device, const void *owner, uint64_t key, stream_work work, void *context)
{
    struct cuda_device *cuda = cuda_of(device);
    struct replay *replay = cuda->replays->is_off || key == 0 ? NULL : find(cuda->replays, owner, key);
    if (replay && !replay->graph && !replay->is_refused && cuda->failure == cudaSuccess && has_room(cuda->replays)) {
        enum status st = record(cuda, replay, work, context);
        if (st != STATUS_OK)
            return st;
    }
    if (!replay || !replay->graph)
        return work(context);
    cuda->replays->n_launched++;
    return cuda_note(cuda, cudaGraphLaunch(replay->graph, cuda->stream), "a recorded graph");
}
