/*
 * cuda_absent.c - in the place of kernels/cuda where the build has no CUDA.
 */
#include "kernels/device.h"

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
