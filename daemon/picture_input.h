/*
 * picture_input.h - pictures of strangers to tokens, and conversations with pictures to prompts.
 *
 * In:      picture files, the JSON form of conversations.   Out: ids.
 * Uses:    the engine's codec worker; waits for it.
 */
#ifndef MGPT_DAEMON_PICTURE_INPUT_H
#define MGPT_DAEMON_PICTURE_INPUT_H

#include "daemon/engine_client.h"
#include "daemon/served_model.h"
#include "model/conversation.h"

/* Reads a file and cuts it to the size of `target` that suits it. The caller ends *out. */
enum status picture_input_read(struct picture **out, const char *path, int target,
                               struct error *err);

/* The tokens of a picture that was cut already, start and end included, appended to *tokens; its
 * codes to *codes unless NULL. */
enum status picture_input_tokens(struct engine_client *client, const struct vocabulary *vocabulary,
                                 const struct picture *rgb, struct ids *codes, struct ids *tokens,
                                 struct error *err);

/* The prompt of a conversation whose pictures are files. client: NULL when it has none
 * (STATUS_UNSUPPORTED otherwise). */
enum status picture_input_prompt(struct engine_client *client, const struct served_model *model,
                                 const struct conversation *conversation, int target,
                                 struct ids *out, struct error *err);

#endif
