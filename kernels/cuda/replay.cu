/*
 * replay.cu - launches that come again and again, recorded as a CUDA graph: one launch instead of ten a layer.
 *
 * The first time a key comes its work runs as it is, so that whatever is loaded or chosen at a first use is; the second
 * time it is recorded, from then on replayed. What cannot be recorded runs as it is for ever.
 */
#include "kernels/cuda/cuda.cuh"

extern "C" {
#include "base/log.h"
}

#include <stdlib.h>

enum { REPLAYS_MAX = 128 };

struct replay {
    const void *owner;
    uint64_t key;
    cudaGraphExec_t graph; /* NULL: not recorded */
    bool is_refused;
};

struct replays {
    struct replay items[REPLAYS_MAX];
    int n;
    bool is_off;
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

/* NULL: the list is full, or the key came for the first time. */
static struct replay *find(struct replays *replays, const void *owner, uint64_t key)
{
    for (int i = 0; i < replays->n; i++)
        if (replays->items[i].owner == owner && replays->items[i].key == key)
            return &replays->items[i];
    if (replays->n < REPLAYS_MAX)
        replays->items[replays->n++] = replay{owner, key, NULL, false};
    return NULL;
}

static cudaError_t instantiate(struct replay *replay, cudaGraph_t graph)
{
    size_t n_nodes = 0, before = 0, after = 0, total;
    cudaMemGetInfo(&before, &total);
    cudaError_t error = cudaGraphGetNodes(graph, NULL, &n_nodes);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&replay->graph, graph, 0);
    cudaMemGetInfo(&after, &total);
    if (error == cudaSuccess)
        log_info("worker", "recorded a graph key=%llx kernels=%zu device_bytes=%zu", (unsigned long long)replay->key,
                 n_nodes, before > after ? before - after : 0);
    return error;
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
        error = instantiate(replay, graph);
    if (graph)
        cudaGraphDestroy(graph);
    if (error == cudaSuccess)
        return STATUS_OK;
    log_warn("worker", "cannot record a graph, steps of its kind run without key=%llx reason=\"%s\"",
             (unsigned long long)replay->key, cudaGetErrorString(error));
    cudaGetLastError();
    cuda->failure = cudaSuccess; /* what failed was not run */
    replay->graph = NULL;
    replay->is_refused = true;
    return STATUS_OK;
}

enum status replay_cuda(struct device *device, const void *owner, uint64_t key, stream_work work, void *context)
{
    struct cuda_device *cuda = cuda_of(device);
    struct replay *replay = cuda->replays->is_off || key == 0 ? NULL : find(cuda->replays, owner, key);
    if (replay && !replay->graph && !replay->is_refused && cuda->failure == cudaSuccess) {
        enum status st = record(cuda, replay, work, context);
        if (st != STATUS_OK)
            return st;
    }
    if (!replay || !replay->graph)
        return work(context);
    cuda->replays->n_launched++;
    return cuda_note(cuda, cudaGraphLaunch(replay->graph, cuda->stream), "a recorded graph");
}
