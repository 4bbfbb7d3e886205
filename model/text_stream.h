/*
 * text_stream.h - the text of ids that come one by one, whole characters at a time.
 *
 * A character of several bytes may be spread over several tokens: they are held back until it is
 * complete. What was told, put together, is what tokenizer_decode() makes of all ids.
 * Owns:    the ids held back; {0} is a new stream, text_stream_fini() ends any.
 */
#ifndef MGPT_MODEL_TEXT_STREAM_H
#define MGPT_MODEL_TEXT_STREAM_H

#include "model/ids.h"
#include "model/tokenizer.h"

enum { TEXT_STREAM_HELD_MAX = 64 }; /* ids; more of them are no character, and told as U+FFFD */

struct text_stream {
    struct ids held;
};

/*
 * Takes the next id. *text is what can be told now, often the id's own text, possibly empty; the
 * caller frees it. STATUS_INVALID: no id of the tokenizer (the stream is as it was).
 */
enum status text_stream_push(struct text_stream *stream, const struct tokenizer *tokenizer,
                             int32_t id, char **text, size_t *bytes, struct error *err);

/* The last ids have come: what is held back is told as it is. The stream is new again. */
enum status text_stream_finish(struct text_stream *stream, const struct tokenizer *tokenizer,
                               char **text, size_t *bytes, struct error *err);

void text_stream_fini(struct text_stream *stream);

#endif
