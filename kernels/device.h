/*
 * device.h - a device that is not the CPU: the operations that a stream of it offers, behind one table.
 *
 * Each operation of kernels/ keeps one plain function; it asks stream_device() and hands its launch over when there is
 * one. Pointers in launches are device memory, but for lists that the contracts call host memory.
 * Launchers queue work and return; what goes wrong later is told by wait().
 */
#ifndef MGPT_KERNELS_DEVICE_H
#define MGPT_KERNELS_DEVICE_H

#include "kernels/attention_launch.h"
#include "kernels/codec_launch.h"
#include "kernels/elementwise.h"
#include "kernels/linear_weight.h"
#include "kernels/sample_launch.h"

struct device;

struct device_operations {
    void (*close)(struct device *device); /* NULL is fine */
    const char *(*path)(const struct device *device); /* "sm_90"; part of the numeric fingerprint */
    enum status (*alloc)(struct device *device, void **out, size_t bytes, struct error *err);
    void (*free)(struct device *device, void *memory, size_t bytes);
    size_t (*held_bytes)(const struct device *device); /* of device memory, this stream's own work memory included */
    size_t (*workspace_bytes)(const struct device *device); /* of it, since the device was opened */
    void (*room)(const struct device *device, size_t *free_bytes, size_t *total_bytes);
    void (*upload)(struct device *device, void *to, const void *host, size_t bytes);
    void (*download)(struct device *device, void *host, const void *from, size_t bytes);
    void (*copy)(struct device *device, void *to, const void *from, size_t bytes);
    enum status (*wait)(struct device *device, struct error *err);
    enum status (*replay)(struct device *device, const void *owner, uint64_t key, stream_work work, void *context);
    void (*forget)(struct device *device, const void *owner);
    uint64_t (*n_replays)(const struct device *device);
    size_t (*recording_bytes)(const struct device *device); /* beside held_bytes, at most */

    enum status (*embedding)(struct device *device, void *y, const int32_t *ids, const void *table, enum dtype dtype,
                             int n_rows, int hidden);
    enum status (*rmsnorm)(struct device *device, const struct rmsnorm_launch *launch, enum dtype dtype, int n_rows);
    enum status (*add)(struct device *device, const struct add_launch *launch, enum dtype dtype, int n_rows);
    enum status (*silu_mul)(struct device *device, const struct silu_mul_launch *launch, enum dtype dtype, int n_rows);
    enum status (*first_not_finite)(struct device *device, int *first, const void *x, enum dtype dtype, int n_rows,
                                    int hidden);
    enum status (*prepare_rows)(struct device *device, uint64_t *likeness, const struct attention_shape *shape,
                                const struct kv_segment *segments, int n_segments);
    enum status (*store)(struct device *device, const struct attention_launch *launch);
    enum status (*attention)(struct device *device, const struct attention_launch *launch);
    /* Choose how products with this weight are done; while loading. */
    enum status (*linear_prepare)(struct device *device, const struct linear_weight *weight, struct error *err);
    enum status (*linear_prepare_range)(struct device *device, const struct linear_weight *weight, int n_out,
                                        struct error *err);
    int (*linear_padded_rows)(int n_rows);
    enum status (*linear)(struct device *device, const struct linear_launch *launch);
    /* results: host memory [n_requests]; waits for them. STATUS_NOMEM: a list that is too long. */
    enum status (*sample)(struct device *device, struct sample_result *results, const struct sample_request *requests,
                          int n_requests);

    enum status (*conv2d)(struct device *device, const struct conv2d_launch *launch);
    enum status (*group_norm)(struct device *device, const struct group_norm_launch *launch);
    enum status (*spatial_attention)(struct device *device, const struct spatial_attention_launch *launch);
    enum status (*codebook_nearest)(struct device *device, int32_t *codes, const float *z,
                                    const struct codebook *codebook, int n);
    /* codes: host memory. */
    enum status (*codebook_lookup)(struct device *device, float *z, const int32_t *codes,
                                   const struct codebook *codebook, int n);
};

/* The first member of what a device keeps. */
struct device {
    const struct device_operations *operations;
};

/* A device of this machine as text, for `inspect device`. */
struct device_facts {
    char name[96], path[16];
    size_t memory_bytes, free_bytes;
    int n_processors;
};

/* As CUDA counts: 13000 is 13.0, of cuBLASLt 130100 is 13.1.0. 0: it is not there. */
struct device_versions {
    int driver, runtime;
    size_t blas;
};

/* ---- kernels/cuda; kernels/cuda_absent.c answers STATUS_UNSUPPORTED in builds without it ---- */

/* STATUS_NOT_FOUND: no driver, or no such device; the text says what to do. */
enum status cuda_device_open(struct device **out, int index, struct error *err);
enum status cuda_device_count(int *out, struct error *err);
enum status cuda_device_describe(struct device_facts *out, int index, struct error *err);
enum status cuda_device_versions(struct device_versions *out, struct error *err);

#endif
