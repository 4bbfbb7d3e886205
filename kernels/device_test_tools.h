/*
 * device_test_tools.h - what the tests of the CUDA device share: the device and its twin, numbers
 * in its memory.
 */
#ifndef MGPT_KERNELS_DEVICE_TEST_TOOLS_H
#define MGPT_KERNELS_DEVICE_TEST_TOOLS_H

#include "kernels/test_tools.h"

#ifdef MGPT_SIMGPU
#include <simgpu_counters.h>
#endif

/* Allocations on the device so far, whoever made them; on a real one nobody counts. */
static inline size_t count_allocations(void)
{
#ifdef MGPT_SIMGPU
    return simgpu_n_allocations();
#else
    return 0;
#endif
}

static inline struct stream *open_device(void)
{
    struct stream_options options = {.n_threads = 1, .device = DEVICE_CUDA};
    struct stream *stream = NULL;
    struct error err;
    if (stream_create(&stream, &options, &err) != STATUS_OK) {
        printf("skipped: no device (%s)\n", err.text);
        skip();
    }
    return stream;
}

static inline double tolerance(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 2e-5 : 2e-2;
}

/* Numbers in device memory: uploaded from f32, or empty. */
struct array {
    struct stream *stream;
    void *memory;
    size_t n;
    enum dtype dtype;
};

static inline struct array to_device(struct stream *stream, const float *x, size_t n,
                                     enum dtype dtype)
{
    struct array array = {stream, NULL, n, dtype};
    assert_int_equal(stream_alloc(stream, &array.memory, n * dtype_bytes(dtype), NULL), STATUS_OK);
    if (x) {
        void *converted = test_as(dtype, x, n);
        stream_upload(stream, array.memory, converted, n * dtype_bytes(dtype));
        free(converted);
    }
    return array;
}

/* Ends the array; its numbers as f32. */
static inline float *from_device(struct array *array)
{
    size_t bytes = array->n * dtype_bytes(array->dtype);
    void *host = malloc(bytes);
    struct error err = {.text = ""};
    stream_download(array->stream, host, array->memory, bytes);
    if (stream_wait(array->stream, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    float *x = test_as_f32(array->dtype, host, array->n);
    stream_free(array->stream, array->memory, bytes);
    free(host);
    return x;
}

static inline void drop(struct array *array)
{
    stream_free(array->stream, array->memory, array->n * dtype_bytes(array->dtype));
}

static inline double largest(const float *x, size_t n)
{
    double found = 1e-30;
    for (size_t i = 0; i < n; i++)
        found = fabs((double)x[i]) > found ? fabs((double)x[i]) : found;
    return found;
}

/* got: freed. want: kept. */
static inline double relative_error(float *got, const float *want, size_t n)
{
    double error = test_largest_error(got, want, n) / largest(want, n);
    free(got);
    return error;
}

static inline void assert_close(const char *what, enum dtype dtype, float *got, const float *want,
                                size_t n)
{
    double error = relative_error(got, want, n);
    if (!(error <= tolerance(dtype)))
        fail_msg("%s %s: error %g, allowed %g", what, dtype_name(dtype), error, tolerance(dtype));
}

/* The same operation on the CPU's f32 path is the twin. */
static inline struct stream *twin_stream(void)
{
    return test_stream(CODE_PATH_PORTABLE, 1);
}

#endif
