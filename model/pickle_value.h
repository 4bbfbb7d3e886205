/*
 * pickle_value.h - how pickle.c (the machine) and pickle_view.c (the questions) keep values. For
 * these two only.
 *
 * Values lie in one array and name each other by index. Nothing is freed before the whole.
 */
#ifndef MGPT_MODEL_PICKLE_VALUE_H
#define MGPT_MODEL_PICKLE_VALUE_H

#include "model/pickle.h"

/* A list or dict that may still grow. */
struct pickle_items {
    pickle_id *ids;
    uint32_t n, capacity;
};

struct pickle_value {
    enum pickle_kind kind;
    union {
        int64_t number;          /* INT, BOOL */
        struct pickle_text text; /* TEXT */
        struct {                 /* TUPLE: ids tuples[first .. first + n) */
            uint32_t first, n;
        } tuple;
        uint32_t container; /* LIST, DICT: index into containers */
        struct {            /* GLOBAL: both borrowed */
            const char *module, *name;
            uint32_t module_bytes, name_bytes;
        } global;
        pickle_id args; /* STORAGE: the persistent id; TENSOR: the arguments. Tuples both */
    };
};

struct pickle {
    const char *name;
    struct pickle_value *values;
    uint32_t n_values, values_capacity;
    pickle_id *tuples;
    uint32_t n_tuples, tuples_capacity;
    struct pickle_items *containers;
    uint32_t n_containers, containers_capacity;
    pickle_id root;
};

/* True when the value is the global MODULE.NAME. */
bool pickle_is_global(const struct pickle *pickle, pickle_id value, const char *module,
                      const char *name);

#endif
