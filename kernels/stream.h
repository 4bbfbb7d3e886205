/*
 * stream.h - the queue of one device: every kernel launcher takes one, last.
 *
 * On the CPU a stream owns one pool of threads, their scratch memory and the chosen code path
 * (instruction set). The thread that calls the launchers is thread 0 of the pool; a stream of one
 * thread starts no other. Results never depend on the number of threads: work is split so that each
 * number has one producer. Waiting threads spin for a few microseconds, then sleep, so that workers
 * may share cores. Threads: a stream belongs to one thread, its creator.
 */
#ifndef MGPT_KERNELS_STREAM_H
#define MGPT_KERNELS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

struct stream;
struct device;

enum device_kind { DEVICE_CPU, DEVICE_CUDA };

/* In rising order of preference. Bits may differ between paths, never within one. */
enum code_path {
    CODE_PATH_PORTABLE,
    CODE_PATH_AVX2,
    CODE_PATH_AVX512BF16,
    CODE_PATH_AMX,
    CODE_PATH_COUNT
};

/*
 * Part of a job's numeric fingerprint, beside the code path, which names processor or device and
 * libraries. Raised with any change after which one path gives other bits than the build before it:
 * the order of a sum, a fused or split product, the splits of attention, an approximation, the
 * sizes that products are padded to, the workspace or the reductions that cuBLASLt may use, options
 * of a compiler. A picture begun by a build of another version then starts anew instead of going on
 * in other bits. Not raised for speed alone, for a new path, or for what tests show to be
 * bit-equal.
 */
enum { KERNELS_NUMERICS_VERSION = 1 };

enum { STREAM_THREADS_MAX = 256 };

struct stream_options {
    int n_threads;   /* 1..STREAM_THREADS_MAX, the caller included */
    const int *cpus; /* [n_threads] the CPU each thread is pinned to, [0] for the caller; NULL: not
                        pinned, but: */
    bool own_cpus;   /* where the process may use just n_threads CPUs, each thread gets one */
    enum device_kind device; /* DEVICE_CUDA: the threads do what is left on the host */
    int device_index;        /* among the CUDA devices of the machine */
};

/*
 * The best code path of this machine, or the one that the environment variable MGPT_CPU_PATH names
 * (amx, avx512bf16, avx2, portable). STATUS_INVALID: an unknown name. STATUS_UNSUPPORTED: not on
 * this machine.
 */
enum status code_path_pick(enum code_path *out, struct error *err);
int code_path_available(enum code_path path); /* asks CPUID, and the kernel for AMX's tile state */
const char *code_path_name(enum code_path path);

/*
 * Picks the code path and starts the threads. On error *out is NULL and nothing is held.
 * STATUS_INVALID: options out of range, a CPU that the process may not use, MGPT_CPU_PATH as above.
 * STATUS_UNSUPPORTED, STATUS_NOT_FOUND: the build has no CUDA, the machine has no such device.
 */
enum status stream_create(struct stream **out, const struct stream_options *options,
                          struct error *err);

/* The same on a path of the caller's choice (tests, benchmarks). */
enum status stream_create_on_path(struct stream **out, const struct stream_options *options,
                                  enum code_path path, struct error *err);
void stream_destroy(struct stream *stream); /* NULL is fine */

int stream_n_threads(const struct stream *stream);
enum code_path stream_code_path(const struct stream *stream);

/* What decides the bits: the code path of the CPU, or the device's architecture ("sm_90"). And
 * "cpu" or "cuda". */
const char *stream_path_name(const struct stream *stream);
const char *stream_device_name(const struct stream *stream);

/*
 * Memory of the device: zeroed, aligned to 64 bytes, large pages where the system has them, all of
 * them taken now.
 * STATUS_NOMEM, *out NULL. stream_free(NULL) is fine.
 */
enum status stream_alloc(struct stream *stream, void **out, size_t bytes, struct error *err);
void stream_free(struct stream *stream, void *memory, size_t bytes);

/*
 * The same for what stays as long as its like, as weights do: pieces lie side by side on the CPU,
 * so that each has large pages to its end, where reading is a quarter slower otherwise. Their pages
 * are given back when all are freed.
 */
enum status stream_alloc_packed(struct stream *stream, void **out, size_t bytes, struct error *err);

/*
 * Copies between host and device memory; ordered with the launches before and after. Host memory is
 * free for reuse, or filled, on return. Device memory is touched by these and by launchers alone,
 * never by the host itself.
 */
void stream_upload(struct stream *stream, void *device, const void *host, size_t bytes);
void stream_download(struct stream *stream, void *host, const void *device, size_t bytes);

/* The same within device memory; the two do not overlap. */
void stream_copy(struct stream *stream, void *to, const void *from, size_t bytes);

/*
 * Waits until everything launched has run. On the CPU launchers return when the work is done.
 * STATUS_INTERNAL: the device failed since the last call; the text says how.
 */
enum status stream_wait(struct stream *stream, struct error *err);

typedef enum status (*stream_work)(void *context);

/*
 * Runs work(context), which launches kernels on this stream and does nothing else. A device may
 * record what was launched and launch the same again for the same owner and an equal key, without
 * calling work: so all but the contents of device memory must be equal then. The results are the
 * same bits. key 0: always calls work, as the CPU does. The environment variable
 * MGPT_CUDA_GRAPHS=off does so too.
 */
enum status stream_replay(struct stream *stream, const void *owner, uint64_t key, stream_work work,
                          void *context);

/* Forgets what was recorded for this owner: before memory that it names is freed. */
void stream_forget(struct stream *stream, const void *owner);

/* How often a recording was launched instead of work. */
uint64_t stream_n_replays(const struct stream *stream);

/* Device memory that recordings take at most, beside what the stream holds; 0 where there are none.
 * When it is used up, new kinds of steps run unrecorded. */
size_t stream_recording_bytes(const struct stream *stream);

/* Device memory held through this stream, with what it took for itself when it was created; 0 on
 * the CPU. */
size_t stream_held_bytes(const struct stream *stream);

/* Of it, what the stream took for its kernels when it was created. */
size_t stream_workspace_bytes(const struct stream *stream);

/* Memory of the device; false on the CPU. */
bool stream_room(const struct stream *stream, size_t *free_bytes, size_t *total_bytes);

/* The device behind the stream (device.h), for dispatch; NULL on the CPU. */
struct device *stream_device(const struct stream *stream);

/* --- for kernels on the CPU --- */

typedef void (*stream_task)(void *context, int thread_index, int n_threads);

/* Runs task on every thread of the pool, the caller being thread 0, and returns when all have
 * ended. */
void stream_parallel(struct stream *stream, stream_task task, void *context);

/*
 * Scratch of one thread, at least `bytes` long, aligned to 64, valid until the next call for that
 * thread; not zeroed. Grows on demand (in the first steps only) and never shrinks. NULL: no memory.
 */
void *stream_scratch(struct stream *stream, int thread_index, size_t bytes);

/* The contiguous share [*first, *last) of n items that thread_index of n_threads takes; shares
 * differ by one at most. */
static inline void stream_share(int64_t n, int thread_index, int n_threads, int64_t *first,
                                int64_t *last)
{
    *first = n * thread_index / n_threads;
    *last = n * (thread_index + 1) / n_threads;
}

#endif
