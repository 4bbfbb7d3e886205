/*
 * sample_launch.h - what a draw came to, shared by dispatch, the CPU's version and the device's.
 */
#ifndef MGPT_KERNELS_SAMPLE_LAUNCH_H
#define MGPT_KERNELS_SAMPLE_LAUNCH_H

#include "kernels/sample.h"

enum sample_outcome { SAMPLE_OK, SAMPLE_NAN, SAMPLE_NONE, SAMPLE_NOMEM };

struct sample_result {
    int32_t outcome; /* enum sample_outcome */
    int32_t id;      /* what was drawn; of SAMPLE_NAN the bad id */
};

#endif
