/*
 * pickle.h - reads the data.pkl of a torch checkpoint without executing anything.
 *
 * In:      a pickle of protocol 0 to 5. Understood: numbers, text, tuples, lists, dicts,
 * OrderedDict, and torch's tensors
 *          (_rebuild_tensor_v2 over a typed storage, alone or inside a Parameter).
 * Inert:   every other class, call and state becomes a value without content. No name is looked up,
 * nothing is called. Limits:  below. There is no recursion, so depth costs nothing but stack
 * entries of four bytes. Out:     values by id; text is borrowed from the bytes parsed, which must
 * outlive the reader. Threads: after parsing any number may read.
 */
#ifndef MGPT_MODEL_PICKLE_H
#define MGPT_MODEL_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/tensor.h"

enum {
    PICKLE_BYTES_MAX = 64 << 20,
    PICKLE_OPS_MAX =
        2 << 20, /* also bounds values and items: an operation makes at most one of each */
    PICKLE_STACK_MAX = 1 << 16, /* values on the stack */
    PICKLE_DEPTH_MAX = 1000,    /* open marks */
    PICKLE_MEMO_MAX = 1 << 20   /* the memo is an array: indices below this */
};

enum pickle_kind {
    PICKLE_INERT, /* something that is not understood, on purpose */
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT, /* that fits into 64 bits; longer ones are inert */
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR
};

struct pickle;
typedef uint32_t pickle_id; /* names a value of one pickle */

struct pickle_text {
    const char *bytes; /* not terminated */
    size_t n_bytes;
};

/* A tensor as the pickle describes it; nothing of it was held against the storage's real bytes. */
struct pickle_tensor {
    struct pickle_text storage_key;  /* the archive's entry data/KEY */
    struct pickle_text storage_type; /* "FloatStorage" ... */
    bool is_supported;               /* the type is one of enum dtype */
    enum dtype dtype;
    int64_t storage_elements;
    int64_t offset; /* elements */
    int rank;
    int64_t shape[TENSOR_RANK_MAX];
    int64_t stride[TENSOR_RANK_MAX]; /* elements */
};

/* STATUS_INVALID: the bytes are no pickle, or one beyond the limits; `name` stands in the texts. On
 * error *out is NULL. */
enum status pickle_parse(struct pickle **out, const void *bytes, size_t n_bytes, const char *name,
                         struct error *err);
void pickle_destroy(struct pickle *pickle); /* NULL is fine */

pickle_id pickle_root(const struct pickle *pickle);
enum pickle_kind pickle_kind(const struct pickle *pickle, pickle_id value);
const char *pickle_kind_name(enum pickle_kind kind); /* "a tuple", for error texts */

/* False, and *out untouched, when the value is of another kind. */
bool pickle_as_text(const struct pickle *pickle, pickle_id value, struct pickle_text *out);
bool pickle_as_int(const struct pickle *pickle, pickle_id value, int64_t *out);

/* Items of a tuple or list; keys and values of a dict in turn; 0 for all else. */
size_t pickle_count(const struct pickle *pickle, pickle_id value);
pickle_id pickle_item(const struct pickle *pickle, pickle_id value, size_t index);

/* The last value under a text key, as Python would have it. False: no dict, or no such key. */
bool pickle_dict_find(const struct pickle *pickle, pickle_id dict, const char *key, pickle_id *out);

/* STATUS_INVALID: no tensor, or one whose parts are of the wrong kind or negative; the text says
 * which part. */
enum status pickle_as_tensor(const struct pickle *pickle, pickle_id value,
                             struct pickle_tensor *out, struct error *err);

#endif
