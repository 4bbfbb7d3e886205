/*
 * model_vocabulary.h - the vocabulary of a model folder, without the tokenizer it was made from.
 */
#ifndef MGPT_WORKER_MODEL_VOCABULARY_H
#define MGPT_WORKER_MODEL_VOCABULARY_H

#include "model/vocabulary.h"

/* Reads FOLDER/tokenizer.json; the caller ends *out with vocabulary_destroy(). On error *out is
 * NULL. */
enum status model_vocabulary_load(struct vocabulary **out, const char *model_dir,
                                  struct error *err);

#endif
