/*
 * picture_output.h - a finished picture as the bytes of a file, with what made it written inside.
 *
 * One way for all: the same request gives the same bytes over HTTP and from `mgpt inspect generate
 * -o`. PNG text chunks: "parameters" (the line other tools read) and "mgpt" (JSON of struct
 * picture_facts).
 */
#ifndef MGPT_DAEMON_PICTURE_OUTPUT_H
#define MGPT_DAEMON_PICTURE_OUTPUT_H

#include "daemon/served_model.h"
#include "model/picture_file.h"
#include "scheduler/plan.h"

struct picture_facts {
    const char *prompt; /* NULL: of a conversation, not told */
    size_t prompt_bytes;
    struct plan_sampling sampling;
};

/* The caller frees *bytes. quality as picture_write_options. */
enum status picture_output_write(uint8_t **bytes, size_t *n_bytes, const struct picture *rgb,
                                 enum picture_format format, int quality,
                                 const struct served_model *model,
                                 const struct picture_facts *facts, struct error *err);

/* The same into a file, whose name tells the format (PNG when it tells none). */
enum status picture_output_write_file(const char *path, const struct picture *rgb,
                                      const struct served_model *model,
                                      const struct picture_facts *facts, struct error *err);

#endif
