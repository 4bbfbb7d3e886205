/*
 * checkpoint_writer_parts.h - the files of a made checkpoint, one function each. For
 * checkpoint_writer.c.
 *
 * `folder` is where the file goes (DIR, or DIR/tokenizer for the codec); all fail with STATUS_IO or
 * STATUS_NOMEM.
 */
#ifndef MGPT_MODEL_CHECKPOINT_WRITER_PARTS_H
#define MGPT_MODEL_CHECKPOINT_WRITER_PARTS_H

#include "model/checkpoint_writer.h"

/* model.safetensors, or shards and model.safetensors.index.json. */
enum status checkpoint_writer_weights(const char *folder,
                                      const struct checkpoint_writer_options *options,
                                      struct error *err);

/* tokenizer.json with `vocab` entries. The seed orders the picture codes. */
enum status checkpoint_writer_tokenizer(const char *folder, int vocab, uint64_t seed,
                                        struct error *err);

/* vqgan.yaml and vqgan.ckpt. */
enum status checkpoint_writer_codec(const char *folder, uint64_t seed, struct error *err);

/* A file written from a string. */
enum status checkpoint_writer_text(const char *folder, const char *name, const char *text,
                                   struct error *err);

#endif
