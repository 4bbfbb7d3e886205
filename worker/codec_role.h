/*
 * codec_role.h - the work of a `--role codec` worker: pictures to codes and back, one at a time, in
 * order of arrival.
 *
 * Owns:    the codec, from Load to Unload.
 * Threads: the compute thread.
 */
#ifndef MGPT_WORKER_CODEC_ROLE_H
#define MGPT_WORKER_CODEC_ROLE_H

#include "kernels/stream.h"
#include "proto/message.h"

struct codec_role;

struct codec_role_options {
    void *control;         /* the control socket, for answers; borrowed */
    const char *vq_dir;    /* folder of vqgan.yaml and vqgan.ckpt; borrowed */
    struct stream *stream; /* borrowed */
};

enum status codec_role_create(struct codec_role **out, const struct codec_role_options *options,
                              struct error *err);
void codec_role_destroy(struct codec_role *role); /* NULL is fine */

/* Does what a message asks and answers it. Returns anything but STATUS_OK only when the worker
 * cannot go on. */
enum status codec_role_handle(struct codec_role *role, const struct message *message,
                              struct error *err);

#endif
