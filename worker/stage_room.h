/*
 * stage_room.h - what a stage needs of the memory it will lie in, and whether its device has so
 * much: asked before anything is loaded.
 *
 * Pure but for the question to the device or the machine. Small vectors are not counted, so what is
 * refused here could not have been loaded; what passes may still meet the limit.
 */
#ifndef MGPT_WORKER_STAGE_ROOM_H
#define MGPT_WORKER_STAGE_ROOM_H

#include "worker/stage.h"

struct stage_need {
    size_t weight_bytes, kv_bytes, activation_bytes; /* SIZE_MAX: more than can be counted */
    size_t recording_bytes; /* taken later, up to this: see stream_recording_bytes() */
};

/* Numbers a row needs for what the parts of layers make of it: qkv and attention output, then gate,
 * up and their product, in the same place; 0 without such parts. */
size_t stage_room_wide(const struct model_config *config, const struct stage_options *options);

/* What stage_create() will take, on the device of `stream`. */
void stage_room_need(struct stage_need *out, const struct model_config *config,
                     const struct stage_options *options, const struct stream *stream);

/* Of the device, else of the machine; both 0: not known. */
void stage_room_free(const struct stream *stream, size_t *free_bytes, size_t *total_bytes);

/* STATUS_NOMEM: less is free there; the text has all numbers and says what to do. */
enum status stage_room_check(const struct model_config *config, const struct stage_options *options,
                             const struct stream *stream, struct error *err);

#endif
