/*
 * cuda_absent.c - in the place of kernels/cuda where the build has no CUDA.
 */
#include "base/check.h"
#include "kernels/device.h"
#include "kernels/side_queue.h"

static enum status refuse(struct error *err)
{
    return error_set(err, STATUS_UNSUPPORTED,
                     "this build has no CUDA: use --device cpu, or build with cmake -DMGPT_CUDA=ON where nvcc is "
                     "installed");
}

enum status cuda_device_open(struct device **out, int index, struct error *err)
{
    (void)index;
    *out = NULL;
    return refuse(err);
}

enum status cuda_device_count(int *out, struct error *err)
{
    *out = 0;
    return refuse(err);
}

enum status cuda_device_describe(struct device_facts *out, int index, struct error *err)
{
    (void)out;
    (void)index;
    return refuse(err);
}

enum status cuda_device_versions(struct device_versions *out, struct error *err)
{
    *out = (struct device_versions){.driver = 0};
    return refuse(err);
}

/* Of a queue that cannot be made nothing is ever asked. */
enum status side_queue_create(struct side_queue **out, struct stream *stream, struct error *err)
{
    (void)stream;
    *out = NULL;
    return refuse(err);
}

void side_queue_destroy(struct side_queue *queue)
{
    CHECK(!queue);
}

enum status side_queue_follow(struct side_queue *queue, struct error *err)
{
    CHECK(!queue);
    return refuse(err);
}

enum status side_queue_mark(struct side_queue *queue, int mark, struct error *err)
{
    (void)mark;
    CHECK(!queue);
    return refuse(err);
}

enum status side_queue_passed(const struct side_queue *queue, int mark, struct error *err)
{
    (void)mark;
    CHECK(!queue);
    return refuse(err);
}

void *side_queue_handle(const struct side_queue *queue)
{
    CHECK(!queue);
    return NULL;
}
