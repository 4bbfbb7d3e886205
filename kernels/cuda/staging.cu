/*
 * staging.cu - copies between host and device, through pinned host memory: nothing waits for a copy to the device, and the
 * caller's memory is free at once. The pinned memory is used front to back until somebody waits for the stream.
 */
#include "kernels/cuda/cuda.cuh"

#include <string.h>

enum { STAGING_ALIGNMENT = 256 };

struct staging {
    char *memory; /* [CUDA_STAGING_BYTES] pinned */
    size_t used_bytes;
};

enum status staging_create(struct cuda_device *cuda, struct error *err)
{
    cuda->staging = (struct staging *)calloc(1, sizeof(*cuda->staging));
    if (!cuda->staging)
        return error_set(err, STATUS_NOMEM, "cannot allocate the staging memory");
    cudaError_t error = cudaMallocHost((void **)&cuda->staging->memory, CUDA_STAGING_BYTES);
    if (error != cudaSuccess)
        return error_set(err, STATUS_NOMEM, "cannot pin %d MiB of host memory: %s", CUDA_STAGING_BYTES >> 20,
                         cudaGetErrorString(error));
    return STATUS_OK;
}

void staging_destroy(struct cuda_device *cuda)
{
    if (cuda->staging)
        cudaFreeHost(cuda->staging->memory);
    free(cuda->staging);
}

enum status cuda_synchronise(struct cuda_device *cuda, const char *what)
{
    CHECK(!cuda->is_recording);
    cuda->staging->used_bytes = 0;
    return cuda_note(cuda, cudaStreamSynchronize(cuda->stream), what);
}

/* Room for a piece of n bytes, fewer when it is more than all there is; *n is set. */
static char *take_room(struct cuda_device *cuda, size_t *n)
{
    struct staging *staging = cuda->staging;
    *n = *n < CUDA_STAGING_BYTES ? *n : (size_t)CUDA_STAGING_BYTES;
    if (staging->used_bytes + *n > CUDA_STAGING_BYTES)
        cuda_synchronise(cuda, "copies that are under way");
    char *room = staging->memory + staging->used_bytes;
    staging->used_bytes += (*n + STAGING_ALIGNMENT - 1) / STAGING_ALIGNMENT * STAGING_ALIGNMENT;
    return room;
}

void cuda_upload(struct cuda_device *cuda, void *to, const void *host, size_t bytes)
{
    CHECK(!cuda->is_recording);
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done;
        char *room = take_room(cuda, &n);
        memcpy(room, (const char *)host + done, n);
        cuda_note(cuda, cudaMemcpyAsync((char *)to + done, room, n, cudaMemcpyHostToDevice, cuda->stream),
                  "a copy to the device");
    }
}

void cuda_download(struct cuda_device *cuda, void *host, const void *from, size_t bytes)
{
    CHECK(!cuda->is_recording);
    for (size_t done = 0, n; done < bytes; done += n) {
        n = bytes - done;
        char *room = take_room(cuda, &n);
        cuda_note(cuda, cudaMemcpyAsync(room, (const char *)from + done, n, cudaMemcpyDeviceToHost, cuda->stream),
                  "a copy to the host");
        cuda_synchronise(cuda, "a copy to the host");
        memcpy((char *)host + done, room, n);
    }
}
