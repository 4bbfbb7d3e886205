/*
 * text_stream.c - decodes the ids that are held; a text that ends in U+FFFD may be half a
 * character.
 */
#include "model/text_stream.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool may_be_cut(const char *text, size_t bytes)
{
    static const char replacement[] = "\xef\xbf\xbd";
    enum { REPLACEMENT_BYTES = sizeof(replacement) - 1 };
    return bytes >= REPLACEMENT_BYTES &&
           memcmp(text + bytes - REPLACEMENT_BYTES, replacement, REPLACEMENT_BYTES) == 0;
}

enum status text_stream_push(struct text_stream *stream, const struct tokenizer *tokenizer,
                             int32_t id, char **text, size_t *bytes, struct error *err)
{
    *text = NULL;
    *bytes = 0;
    enum status st = ids_push(&stream->held, id, err);
    if (st != STATUS_OK)
        return st;
    st = tokenizer_decode(tokenizer, stream->held.ids, stream->held.n, text, bytes, err);
    if (st != STATUS_OK) {
        stream->held.n--;
        return st;
    }
    if (may_be_cut(*text, *bytes) && stream->held.n < TEXT_STREAM_HELD_MAX) {
        (*text)[0] = 0;
        *bytes = 0;
    } else {
        stream->held.n = 0;
    }
    return STATUS_OK;
}

enum status text_stream_finish(struct text_stream *stream, const struct tokenizer *tokenizer,
                               char **text, size_t *bytes, struct error *err)
{
    enum status st =
        tokenizer_decode(tokenizer, stream->held.ids, stream->held.n, text, bytes, err);
    stream->held.n = 0;
    return st;
}

void text_stream_fini(struct text_stream *stream)
{
    ids_fini(&stream->held);
}
