/*
 * device.cu - opening a CUDA device, its memory, copies and waiting.
 */
#include "kernels/cuda/cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_MAJOR = 8 }; /* sm_80: bf16 in mma.sync, cp.async */

enum status cuda_reserve(struct cuda_device *cuda, void **out, size_t bytes, struct error *err)
{
    CHECK(!cuda->is_recording);
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaSuccess) {
        cuda->held_bytes += bytes;
        return STATUS_OK;
    }
    *out = NULL;
    size_t free_bytes = 0, total_bytes = 0;
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return error_set(err, STATUS_NOMEM,
                     "cannot reserve %zu MiB of device memory (%s), %zu of %zu MiB are free: use more stages or fewer "
                     "KV blocks",
                     (bytes + (1 << 20) - 1) >> 20, cudaGetErrorString(error), free_bytes >> 20, total_bytes >> 20);
}

void cuda_release(struct cuda_device *cuda, void *memory, size_t bytes)
{
    if (!memory)
        return;
    CHECK(cuda->held_bytes >= bytes);
    cuda->held_bytes -= bytes;
    cuda_note(cuda, cudaFree(memory), "cudaFree");
}

static enum status alloc_memory(struct device *device, void **out, size_t bytes, struct error *err)
{
    struct cuda_device *cuda = cuda_of(device);
    enum status st = cuda_reserve(cuda, out, bytes, err);
    if (st == STATUS_OK && bytes > 0)
        cuda_note(cuda, cudaMemsetAsync(*out, 0, bytes, cuda->stream), "a memset");
    return st;
}

static void free_memory(struct device *device, void *memory, size_t bytes)
{
    cuda_synchronise(cuda_of(device), "work before memory is freed");
    cuda_release(cuda_of(device), memory, bytes);
}

/* A device that does not tell has room: what does not fit is told when it is reserved. */
static void room(const struct device *, size_t *free_bytes, size_t *total_bytes)
{
    if (cudaMemGetInfo(free_bytes, total_bytes) != cudaSuccess)
        *free_bytes = *total_bytes = SIZE_MAX;
}

static size_t held_bytes(const struct device *device)
{
    return ((const struct cuda_device *)device)->held_bytes;
}

static size_t workspace_bytes(const struct device *device)
{
    return ((const struct cuda_device *)device)->workspace_bytes;
}

static void upload(struct device *device, void *to, const void *host, size_t bytes)
{
    cuda_upload(cuda_of(device), to, host, bytes);
}

static void download(struct device *device, void *host, const void *from, size_t bytes)
{
    cuda_download(cuda_of(device), host, from, bytes);
}

static void copy(struct device *device, void *to, const void *from, size_t bytes)
{
    struct cuda_device *cuda = cuda_of(device);
    cuda_note(cuda, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda->stream), "a copy on the device");
}

static enum status wait_for_device(struct device *device, struct error *err)
{
    struct cuda_device *cuda = cuda_of(device);
    cuda_synchronise(cuda, "the queued kernels");
    cudaError_t failure = cuda->failure;
    cuda->failure = cudaSuccess;
    if (failure == cudaSuccess)
        return STATUS_OK;
    return error_set(err, STATUS_INTERNAL, "CUDA device %d failed at %s: %s", cuda->index, cuda->failed_at,
                     cudaGetErrorString(failure));
}

static const char *path_of(const struct device *device)
{
    return ((const struct cuda_device *)device)->path;
}

static void close_device(struct device *device)
{
    struct cuda_device *cuda = cuda_of(device);
    if (!cuda)
        return;
    if (cuda->stream)
        cudaStreamSynchronize(cuda->stream);
    replays_destroy(cuda);
    linear_plans_destroy(cuda);
    row_table_destroy(cuda);
    sample_table_destroy(cuda);
    cuda_release(cuda, cuda->blas_workspace, CUDA_BLAS_WORKSPACE_BYTES);
    cuda_release(cuda, cuda->partials, CUDA_PARTIALS_BYTES);
    cuda_release(cuda, cuda->ids, CUDA_TABLE_BYTES);
    staging_destroy(cuda);
    if (cuda->blas)
        cublasLtDestroy(cuda->blas);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static const struct device_operations operations = {close_device,
                                                    path_of,
                                                    alloc_memory,
                                                    free_memory,
                                                    held_bytes,
                                                    workspace_bytes,
                                                    room,
                                                    upload,
                                                    download,
                                                    copy,
                                                    wait_for_device,
                                                    replay_cuda,
                                                    forget_cuda,
                                                    n_replays_cuda,
                                                    recording_bytes_cuda,
                                                    embedding_cuda,
                                                    rmsnorm_cuda,
                                                    add_cuda,
                                                    silu_mul_cuda,
                                                    first_not_finite_cuda,
                                                    prepare_rows_cuda,
                                                    store_cuda,
                                                    attention_cuda,
                                                    linear_prepare_cuda,
                                                    linear_prepare_range_cuda,
                                                    linear_padded_rows_cuda,
                                                    linear_cuda,
                                                    sample_cuda,
                                                    conv2d_cuda,
                                                    group_norm_cuda,
                                                    spatial_attention_cuda,
                                                    codebook_nearest_cuda,
                                                    codebook_lookup_cuda};

extern "C" enum status cuda_device_count(int *out, struct error *err)
{
    *out = 0;
    cudaError_t error = cudaGetDeviceCount(out);
    if (error == cudaErrorInsufficientDriver)
        return error_set(err, STATUS_NOT_FOUND,
                         "no CUDA driver, or one that is too old for this build: install a newer NVIDIA driver, or use "
                         "--device cpu");
    if (error == cudaErrorNoDevice || (error == cudaSuccess && *out == 0))
        return error_set(err, STATUS_NOT_FOUND,
                         "no CUDA device is visible (look at nvidia-smi and CUDA_VISIBLE_DEVICES), or use --device cpu");
    if (error != cudaSuccess)
        return error_set(err, STATUS_NOT_FOUND,
                         "cannot count the CUDA devices: %s (where /dev/nvidia-uvm is missing, run nvidia-modprobe -u once: "
                         "a confined worker may not)",
                         cudaGetErrorString(error));
    return STATUS_OK;
}

static enum status find_device(cudaDeviceProp *properties, int index, struct error *err)
{
    int n;
    enum status st = cuda_device_count(&n, err);
    if (st != STATUS_OK)
        return st;
    if (index < 0 || index >= n)
        return error_set(err, STATUS_NOT_FOUND,
                         "no CUDA device %d: this machine has %d, counted from 0 (--device cuda:0 puts every stage on "
                         "the first)",
                         index, n);
    cudaError_t error = cudaGetDeviceProperties(properties, index);
    if (error == cudaSuccess)
        error = cudaSetDevice(index);
    if (error != cudaSuccess)
        return error_set(err, STATUS_NOT_FOUND, "cannot open CUDA device %d: %s", index, cudaGetErrorString(error));
    if (properties->major < OLDEST_MAJOR)
        return error_set(err, STATUS_UNSUPPORTED, "CUDA device %d is sm_%d%d, expected sm_%d0 or newer", index,
                         properties->major, properties->minor, OLDEST_MAJOR);
    return STATUS_OK;
}

extern "C" enum status cuda_device_describe(struct device_facts *out, int index, struct error *err)
{
    cudaDeviceProp properties;
    memset(out, 0, sizeof(*out));
    enum status st = find_device(&properties, index, err);
    if (st != STATUS_OK)
        return st;
    snprintf(out->name, sizeof(out->name), "%.*s", (int)sizeof(out->name) - 1, properties.name);
    snprintf(out->path, sizeof(out->path), "sm_%d%d", properties.major, properties.minor);
    out->n_processors = properties.multiProcessorCount;
    cudaError_t error = cudaMemGetInfo(&out->free_bytes, &out->memory_bytes);
    return error == cudaSuccess ? STATUS_OK
                                : error_set(err, STATUS_INTERNAL, "cannot ask CUDA device %d for its memory: %s", index,
                                            cudaGetErrorString(error));
}

extern "C" enum status cuda_device_versions(struct device_versions *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    cudaError_t error = cudaRuntimeGetVersion(&out->runtime);
    if (error == cudaSuccess)
        error = cudaDriverGetVersion(&out->driver);
    out->blas = cublasLtGetVersion();
    return error == cudaSuccess
               ? STATUS_OK
               : error_set(err, STATUS_INTERNAL, "cannot ask CUDA for its versions: %s", cudaGetErrorString(error));
}

static enum status open_parts(struct cuda_device *cuda, struct error *err)
{
    cudaError_t error = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
    if (error != cudaSuccess)
        return error_set(err, STATUS_INTERNAL, "cannot create a CUDA stream: %s", cudaGetErrorString(error));
    cublasStatus_t blas = cublasLtCreate(&cuda->blas);
    if (blas != CUBLAS_STATUS_SUCCESS)
        return error_set(err, STATUS_INTERNAL, "cannot open cuBLASLt: %s", cublasLtGetStatusString(blas));
    enum status st = staging_create(cuda, err);
    if (st == STATUS_OK)
        st = replays_create(cuda, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, &cuda->blas_workspace, CUDA_BLAS_WORKSPACE_BYTES, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, (void **)&cuda->partials, CUDA_PARTIALS_BYTES, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, (void **)&cuda->ids, CUDA_TABLE_BYTES, err);
    if (st == STATUS_OK)
        st = attention_prepare_bf16(cuda);
    if (st == STATUS_OK)
        st = linear_plans_create(cuda, err);
    if (st == STATUS_OK)
        st = row_table_create(cuda, err);
    if (st == STATUS_OK)
        st = sample_table_create(cuda, err);
    return st;
}

/*
 * What decides the bits of a device beside our own sources (KERNELS_NUMERICS_VERSION): the architecture, the number of
 * processors, by which cuBLASLt chooses too, the toolkit, whose exponentials and roots the kernels hold, and cuBLASLt. Not
 * the driver: it translates nothing, the binary has code for sm_80 and sm_90, but for devices that are newer than both.
 */
static void name_path(struct cuda_device *cuda, const cudaDeviceProp *properties)
{
    enum { NEWEST_MAJOR = 9 };
    int runtime = 0, driver = 0;
    char translator[24] = "";
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    if (properties->major > NEWEST_MAJOR)
        snprintf(translator, sizeof(translator), "-driver%d", driver);
    snprintf(cuda->path, sizeof(cuda->path), "sm_%d%d-%d-cuda%d-cublaslt%zu%s", properties->major, properties->minor,
             properties->multiProcessorCount, runtime, cublasLtGetVersion(), translator);
}

extern "C" enum status cuda_device_open(struct device **out, int index, struct error *err)
{
    cudaDeviceProp properties;
    *out = NULL;
    enum status st = find_device(&properties, index, err);
    if (st != STATUS_OK)
        return st;
    struct cuda_device *cuda = (struct cuda_device *)calloc(1, sizeof(*cuda));
    if (!cuda)
        return error_set(err, STATUS_NOMEM, "cannot allocate a device");
    cuda->base.operations = &operations;
    cuda->index = index;
    name_path(cuda, &properties);
    st = open_parts(cuda, err);
    if (st != STATUS_OK) {
        close_device(&cuda->base);
        return error_wrap(err, st, "CUDA device %d", index);
    }
    cuda->workspace_bytes = cuda->held_bytes;
    *out = &cuda->base;
    return STATUS_OK;
}
