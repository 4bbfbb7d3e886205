/*
 * text_buffer.h - growing bytes.
 *
 * Owns: its memory; {0} is empty. What others borrowed from it is gone after the next append.
 */
#ifndef MGPT_MODEL_TEXT_BUFFER_H
#define MGPT_MODEL_TEXT_BUFFER_H

#include <stddef.h>

#include "base/error.h"

struct text_buffer {
    char *bytes;
    size_t n, capacity;
};

/* Makes room for n bytes in all. */
enum status text_buffer_reserve(struct text_buffer *buffer, size_t n, struct error *err);
enum status text_buffer_append(struct text_buffer *buffer, const void *bytes, size_t n,
                               struct error *err);
void text_buffer_fini(struct text_buffer *buffer);

#endif
