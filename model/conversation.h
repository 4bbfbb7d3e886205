/*
 * conversation.h - questions, answers and pictures to ids: the templates of the training.
 *
 *     <s> question <end of turn> answer <end of turn> ... question <end of turn>
 *
 * with the last answer left open.
 *
 * In:      turns made of parts, texts and pictures; or the JSON form
 *          {"images": [file, ...], "qas": [[question, answer or null], ...]}.
 * Out:     ids, with the tokens of each picture in its place.
 *
 * Texts are text: no control token is recognised in them. The mark <|image|> is a picture's place
 * in the JSON form and in conversation_add_marked() only.
 */
#ifndef MGPT_MODEL_CONVERSATION_H
#define MGPT_MODEL_CONVERSATION_H

#include "model/ids.h"
#include "model/sizes.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"

enum {
    CONVERSATION_TEXT_BYTES_MAX = 8 << 20, /* all texts; also of the JSON form */
    CONVERSATION_PARTS_MAX = 65536,
    CONVERSATION_PICTURES_MAX = 64
};

#define CONVERSATION_PICTURE_MARK "<|image|>"

struct conversation;

enum status conversation_create(struct conversation **out, struct error *err);
void conversation_destroy(struct conversation *conversation); /* NULL is fine */

/* Adds to the turn that is open. Texts are copied; neighbouring texts of a turn are tokenized as
 * one. */
enum status conversation_add_text(struct conversation *conversation, const char *text, size_t bytes,
                                  struct error *err);
enum status conversation_add_picture(struct conversation *conversation, int picture_index,
                                     struct error *err);

/* A text of this program (a task's template): each <|image|> in it is the place of the next
 * picture, counted over the conversation. */
enum status conversation_add_marked(struct conversation *conversation, const char *text,
                                    size_t bytes, struct error *err);

/* Ends the open turn with the end-of-turn token: a question is then asked, or an answer complete.
 */
enum status conversation_end_turn(struct conversation *conversation, struct error *err);

/* "Generate an image of WxH according to the following prompt:\nPROMPT" as a whole turn; an empty
 * prompt is legal here. */
enum status conversation_add_text_to_image(struct conversation *conversation, const char *prompt,
                                           size_t bytes, struct picture_size size,
                                           struct error *err);

/*
 * Reads the JSON form. Pictures without a mark go in front of the first question, each followed by
 * a space; either all pictures have a mark or none. Only the last answer may be null: it is left
 * open. `name` stands for the JSON in error texts.
 */
enum status conversation_parse(struct conversation **out, const void *json, size_t bytes,
                               const char *name, struct error *err);

int conversation_n_pictures(
    const struct conversation *conversation); /* one past the largest picture index */
const char *conversation_picture_file(const struct conversation *conversation,
                                      int index); /* from the JSON form, else NULL */

/*
 * Appends <s> and the ids of all parts. pictures: [n_pictures] the tokens of each (unirep_build()).
 * STATUS_INVALID: a picture index not below n_pictures, a text that tokenizer_encode() refuses.
 */
enum status conversation_encode(const struct conversation *conversation,
                                const struct tokenizer *tokenizer,
                                const struct vocabulary *vocabulary, const struct ids *pictures,
                                int n_pictures, struct ids *out, struct error *err);

#endif
