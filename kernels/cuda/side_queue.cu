/*
 * side_queue.cu - a CUDA stream of its own, and events.
 */
#include "kernels/cuda/cuda.cuh"

#include <stdlib.h>

extern "C" {
#include "kernels/side_queue.h"
}

struct side_queue {
    struct cuda_device *cuda; /* borrowed */
    cudaStream_t stream;
    cudaEvent_t marks[SIDE_QUEUE_MARKS], fork;
};

static enum status failed(enum status status, const char *what, cudaError_t error, struct error *err)
{
    return error_set(err, status, "%s failed: %s", what, cudaGetErrorString(error));
}

extern "C" enum status side_queue_create(struct side_queue **out, struct stream *stream, struct error *err)
{
    *out = NULL;
    struct device *device = stream_device(stream);
    if (!device)
        return error_set(err, STATUS_UNSUPPORTED, "the CPU has no side queue");
    struct side_queue *queue = (struct side_queue *)calloc(1, sizeof(*queue));
    if (!queue)
        return error_set(err, STATUS_NOMEM, "cannot allocate a side queue");
    queue->cuda = cuda_of(device);
    cudaError_t error = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
    for (int i = 0; error == cudaSuccess && i < SIDE_QUEUE_MARKS; i++)
        error = cudaEventCreateWithFlags(&queue->marks[i], cudaEventDisableTiming);
    if (error == cudaSuccess)
        error = cudaEventCreateWithFlags(&queue->fork, cudaEventDisableTiming);
    if (error != cudaSuccess) {
        side_queue_destroy(queue);
        return failed(STATUS_NOMEM, "creating a side queue", error, err);
    }
    *out = queue;
    return STATUS_OK;
}

extern "C" void side_queue_destroy(struct side_queue *queue)
{
    if (!queue)
        return;
    for (int i = 0; i < SIDE_QUEUE_MARKS; i++)
        if (queue->marks[i])
            cudaEventDestroy(queue->marks[i]);
    if (queue->fork)
        cudaEventDestroy(queue->fork);
    if (queue->stream)
        cudaStreamDestroy(queue->stream);
    free(queue);
}

extern "C" enum status side_queue_follow(struct side_queue *queue, struct error *err)
{
    cudaError_t error = cudaEventRecord(queue->fork, queue->cuda->stream);
    if (error == cudaSuccess)
        error = cudaStreamWaitEvent(queue->stream, queue->fork, 0);
    return error == cudaSuccess ? STATUS_OK : failed(STATUS_INTERNAL, "following the stream", error, err);
}

extern "C" enum status side_queue_mark(struct side_queue *queue, int mark, struct error *err)
{
    CHECK(mark >= 0);
    CHECK(mark < SIDE_QUEUE_MARKS);
    cudaError_t error = cudaEventRecord(queue->marks[mark], queue->stream);
    return error == cudaSuccess ? STATUS_OK : failed(STATUS_INTERNAL, "marking a side queue", error, err);
}

extern "C" enum status side_queue_passed(const struct side_queue *queue, int mark, struct error *err)
{
    CHECK(mark >= 0);
    CHECK(mark < SIDE_QUEUE_MARKS);
    cudaError_t error = cudaEventQuery(queue->marks[mark]);
    if (error == cudaErrorNotReady) {
        cudaGetLastError(); /* no error, but kept like one: the next launch must not find it */
        return STATUS_TIMEOUT;
    }
    return error == cudaSuccess ? STATUS_OK : failed(STATUS_INTERNAL, "a transfer", error, err);
}

extern "C" void *side_queue_handle(const struct side_queue *queue)
{
    return queue->stream;
}
