/*
 * pickle_view.c - questions to a parsed pickle.
 */
#include "model/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "model/pickle_value.h"

void pickle_destroy(struct pickle *pickle)
{
    if (!pickle)
        return;
    for (uint32_t i = 0; i < pickle->n_containers; i++)
        free(pickle->containers[i].ids);
    free(pickle->containers);
    free(pickle->tuples);
    free(pickle->values);
    free(pickle);
}

pickle_id pickle_root(const struct pickle *pickle)
{
    return pickle->root;
}

enum pickle_kind pickle_kind(const struct pickle *pickle, pickle_id value)
{
    return pickle->values[value].kind;
}

const char *pickle_kind_name(enum pickle_kind kind)
{
    static const char *const names[] = {
        [PICKLE_INERT] = "an object of another class",
        [PICKLE_NONE] = "None",
        [PICKLE_BOOL] = "a boolean",
        [PICKLE_INT] = "an integer",
        [PICKLE_TEXT] = "a string",
        [PICKLE_TUPLE] = "a tuple",
        [PICKLE_LIST] = "a list",
        [PICKLE_DICT] = "a dict",
        [PICKLE_GLOBAL] = "a class",
        [PICKLE_STORAGE] = "a storage",
        [PICKLE_TENSOR] = "a tensor",
    };
    return names[kind];
}

static bool text_is(const char *bytes, size_t n_bytes, const char *expected)
{
    return n_bytes == strlen(expected) && memcmp(bytes, expected, n_bytes) == 0;
}

bool pickle_is_global(const struct pickle *pickle, pickle_id value, const char *module,
                      const char *name)
{
    const struct pickle_value *v = &pickle->values[value];
    return v->kind == PICKLE_GLOBAL && text_is(v->global.module, v->global.module_bytes, module) &&
           text_is(v->global.name, v->global.name_bytes, name);
}

bool pickle_as_text(const struct pickle *pickle, pickle_id value, struct pickle_text *out)
{
    if (pickle->values[value].kind != PICKLE_TEXT)
        return false;
    *out = pickle->values[value].text;
    return true;
}

bool pickle_as_int(const struct pickle *pickle, pickle_id value, int64_t *out)
{
    if (pickle->values[value].kind != PICKLE_INT)
        return false;
    *out = pickle->values[value].number;
    return true;
}

size_t pickle_count(const struct pickle *pickle, pickle_id value)
{
    const struct pickle_value *v = &pickle->values[value];
    if (v->kind == PICKLE_TUPLE)
        return v->tuple.n;
    if (v->kind == PICKLE_LIST || v->kind == PICKLE_DICT)
        return pickle->containers[v->container].n;
    return 0;
}

pickle_id pickle_item(const struct pickle *pickle, pickle_id value, size_t index)
{
    const struct pickle_value *v = &pickle->values[value];
    if (v->kind == PICKLE_TUPLE)
        return pickle->tuples[v->tuple.first + index];
    return pickle->containers[v->container].ids[index];
}

bool pickle_dict_find(const struct pickle *pickle, pickle_id dict, const char *key, pickle_id *out)
{
    if (pickle->values[dict].kind != PICKLE_DICT)
        return false;
    for (size_t i = pickle_count(pickle, dict); i >= 2; i -= 2) {
        struct pickle_text text;
        if (pickle_as_text(pickle, pickle_item(pickle, dict, i - 2), &text) &&
            text_is(text.bytes, text.n_bytes, key)) {
            *out = pickle_item(pickle, dict, i - 1);
            return true;
        }
    }
    return false;
}

/* The storage types torch writes into checkpoints, and what they hold. */
static bool storage_dtype(struct pickle_text type, enum dtype *dtype)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } known[] = {
        {"FloatStorage", DTYPE_F32}, {"HalfStorage", DTYPE_F16}, {"BFloat16Storage", DTYPE_BF16}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (text_is(type.bytes, type.n_bytes, known[i].name)) {
            *dtype = known[i].dtype;
            return true;
        }
    return false;
}

static enum status wrong(const struct pickle *pickle, const char *part, const char *expected,
                         struct error *err)
{
    return error_set(err, STATUS_INVALID, "'%s': the tensor's %s is not %s", pickle->name, part,
                     expected);
}

static enum status take_storage(struct pickle_tensor *out, const struct pickle *pickle,
                                pickle_id storage, struct error *err)
{
    const struct pickle_value *value = &pickle->values[storage];
    if (value->kind != PICKLE_STORAGE)
        return error_set(err, STATUS_INVALID,
                         "'%s': the tensor's storage is %s, expected a storage of torch",
                         pickle->name, pickle_kind_name(value->kind));
    const struct pickle_value *type = &pickle->values[pickle_item(pickle, value->args, 1)];
    if (type->kind != PICKLE_GLOBAL)
        return wrong(pickle, "storage type", "a class", err);
    out->storage_type = (struct pickle_text){type->global.name, type->global.name_bytes};
    out->is_supported = text_is(type->global.module, type->global.module_bytes, "torch") &&
                        storage_dtype(out->storage_type, &out->dtype);
    if (!pickle_as_text(pickle, pickle_item(pickle, value->args, 2), &out->storage_key))
        return wrong(pickle, "storage key", "a string", err);
    if (!pickle_as_int(pickle, pickle_item(pickle, value->args, 4), &out->storage_elements) ||
        out->storage_elements < 0)
        return wrong(pickle, "storage size", "an integer of at least 0", err);
    return STATUS_OK;
}

/* A tuple of sizes or strides. */
static enum status take_sizes(int64_t out[TENSOR_RANK_MAX], int *rank, const struct pickle *pickle,
                              pickle_id sizes, const char *part, struct error *err)
{
    enum pickle_kind kind = pickle_kind(pickle, sizes);
    if ((kind != PICKLE_TUPLE && kind != PICKLE_LIST) ||
        pickle_count(pickle, sizes) > TENSOR_RANK_MAX)
        return wrong(pickle, part, "a tuple of at most 8 integers", err);
    *rank = (int)pickle_count(pickle, sizes);
    for (int i = 0; i < *rank; i++) {
        pickle_id size = pickle_item(pickle, sizes, (size_t)i);
        if (!pickle_as_int(pickle, size, &out[i]))
            return error_set(err, STATUS_INVALID, "'%s': the tensor's %s has %s, expected integers",
                             pickle->name, part, pickle_kind_name(pickle_kind(pickle, size)));
        if (out[i] < 0)
            return error_set(err, STATUS_INVALID,
                             "'%s': the tensor's %s has %lld, expected integers of at least 0",
                             pickle->name, part, (long long)out[i]);
    }
    return STATUS_OK;
}

enum status pickle_as_tensor(const struct pickle *pickle, pickle_id value,
                             struct pickle_tensor *out, struct error *err)
{
    enum { STORAGE, OFFSET, SIZE, STRIDE, N_PARTS };
    const struct pickle_value *v = &pickle->values[value];
    memset(out, 0, sizeof(*out));
    if (v->kind != PICKLE_TENSOR)
        return error_set(err, STATUS_INVALID, "'%s': found %s, expected a tensor", pickle->name,
                         pickle_kind_name(v->kind));
    if (pickle_count(pickle, v->args) < N_PARTS)
        return wrong(pickle, "description", "complete", err);
    int n_strides = 0;
    enum status st = take_storage(out, pickle, pickle_item(pickle, v->args, STORAGE), err);
    if (st == STATUS_OK &&
        (!pickle_as_int(pickle, pickle_item(pickle, v->args, OFFSET), &out->offset) ||
         out->offset < 0))
        st = wrong(pickle, "offset", "an integer of at least 0", err);
    if (st == STATUS_OK)
        st = take_sizes(out->shape, &out->rank, pickle, pickle_item(pickle, v->args, SIZE), "size",
                        err);
    if (st == STATUS_OK)
        st = take_sizes(out->stride, &n_strides, pickle, pickle_item(pickle, v->args, STRIDE),
                        "stride", err);
    if (st == STATUS_OK && n_strides != out->rank)
        st = wrong(pickle, "stride", "as long as its size", err);
    return st;
}
