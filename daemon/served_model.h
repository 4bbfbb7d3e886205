/*
 * served_model.h - what the daemon itself knows of a checkpoint folder: sizes, settings, tokenizer;
 * never the weights.
 *
 * Threads: never changed after it was opened, but for the checkpoint, which the engine's loop alone
 * uses then.
 */
#ifndef MGPT_DAEMON_SERVED_MODEL_H
#define MGPT_DAEMON_SERVED_MODEL_H

#include "model/checkpoint.h"
#include "model/ids.h"
#include "model/mgpt_json.h"
#include "model/sizes.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"

struct served_model {
    char *folder;
    char *name; /* last part of the folder's path */
    struct mgpt_settings settings;
    struct tokenizer *tokenizer;
    struct vocabulary *vocabulary;
    struct checkpoint *checkpoint; /* NULL when only the tokenizer was asked for */
    struct model_config config;    /* zeroed likewise */
};

enum served_model_parts {
    SERVED_TOKENIZER, /* tokenizer.json, mgpt.json */
    SERVED_ALL        /* and config.json, headers of the weights */
};

/* Errors name the file. On error *out is NULL. */
enum status served_model_open(struct served_model **out, const char *folder,
                              enum served_model_parts parts, struct error *err);
void served_model_close(struct served_model *model); /* NULL is fine */

/*
 * Appends <s>, "Generate an image of WxH according to the following prompt:\nPROMPT", end of turn,
 * and the opening of the picture (start, height, width).
 *
 * STATUS_INVALID: a size without token, a prompt that is no UTF-8.
 */
enum status served_model_text_to_image(const struct served_model *model, const char *prompt,
                                       size_t prompt_bytes, struct picture_size size,
                                       struct ids *out, struct error *err);

/*
 * Whether a picture of this size can be made after a prompt of n_prompt tokens (its opening
 * included).
 *
 * STATUS_UNSUPPORTED names the size, the positions it needs and those the model has.
 */
enum status served_model_check_length(const struct served_model *model, size_t n_prompt,
                                      struct picture_size size, struct error *err);

#endif
