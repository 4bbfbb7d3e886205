/*
 * bpe.h - byte-pair encoding: the characters of a word, merged pair by pair in the list's order.
 *
 * A word of n characters takes O(n log n): candidates wait in a heap, the word is a linked list.
 * Threads: never changed after creation; each thread has its own struct bpe_scratch.
 */
#ifndef MGPT_MODEL_BPE_H
#define MGPT_MODEL_BPE_H

#include <jansson.h>

#include "model/hash_map.h"
#include "model/ids.h"

enum { BPE_AFFIX_BYTES_MAX = 64 }; /* continuing_subword_prefix, end_of_word_suffix */

struct bpe;

/*
 * model: the value of "model", of type BPE. vocabulary: its "vocab", borrowed until bpe_destroy().
 * STATUS_INVALID: a merge that is no pair, or of a part or with a result that the vocabulary has
 * not.
 */
enum status bpe_create(struct bpe **out, const json_t *model, const struct name_map *vocabulary,
                       struct error *err);
void bpe_destroy(struct bpe *bpe); /* NULL is fine */

/* Working memory, kept from word to word. {0} is legal; ends with bpe_scratch_fini(). */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    uint64_t *heap;
    size_t n_symbols, n_heap, symbols_capacity, heap_capacity;
};

void bpe_scratch_fini(struct bpe_scratch *scratch);

/* Appends the ids of one word, valid UTF-8, to *out. */
enum status bpe_encode(const struct bpe *bpe, const char *word, size_t bytes,
                       struct bpe_scratch *scratch, struct ids *out, struct error *err);

#endif
