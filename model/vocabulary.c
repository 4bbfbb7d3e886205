/*
 * vocabulary.c - looks the meaningful tokens up by name.
 */
#include "model/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer.h"

enum {
    CODE_DIGITS_MAX = 5,
    SIZE_NAME_NUMBER = 8800, /* of <reserved08800>, the size 0 */
    NAME_BYTES = 32
};

void vocabulary_destroy(struct vocabulary *v)
{
    if (!v)
        return;
    free((void *)v->code_to_id);
    free((void *)v->id_to_code);
    free((void *)v->size_to_id);
    free((void *)v->id_to_size);
    free(v);
}

static enum status find_names(struct vocabulary *v, const struct tokenizer *tokenizer,
                              struct error *err)
{
    const struct {
        const char *name, *meaning;
        int32_t *id;
    } wanted[] = {
        {"<s>", "the start of a conversation", &v->bos},
        {"<racm3:break>", "the start of a picture", &v->image_start},
        {"<eoss>", "the end of a picture", &v->image_end},
        {"<reserved08799>", "the end of a picture's row", &v->new_line},
        {"<reserved08706>", "the end of a turn", &v->end_of_turn},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        *wanted[i].id = tokenizer_find(tokenizer, wanted[i].name);
        if (*wanted[i].id < 0)
            return error_set(err, STATUS_INVALID, "the vocabulary has no token '%s' (%s)",
                             wanted[i].name, wanted[i].meaning);
    }
    v->pad = tokenizer_find(tokenizer, "<pad>");
    return STATUS_OK;
}

/* The code that a name of the form IMGIMG, letters A..J, Z stands for; -1 for other names. */
static int parse_code(const char *name)
{
    const char prefix[] = "IMGIMG";
    if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    const char *digit = name + sizeof(prefix) - 1;
    int code = 0;
    int n_digits = 0;
    for (; *digit >= 'A' && *digit <= 'J' && n_digits < CODE_DIGITS_MAX; digit++, n_digits++)
        code = code * 10 + (*digit - 'A');
    return n_digits && digit[0] == 'Z' && digit[1] == 0 ? code : -1;
}

static enum status count_codes(struct vocabulary *v, const struct tokenizer *tokenizer,
                               int32_t *id_to_code, struct error *err)
{
    for (int32_t id = 0; id < v->n_ids; id++) {
        const char *name = tokenizer_name(tokenizer, id);
        id_to_code[id] = name ? parse_code(name) : -1;
        if (id_to_code[id] < 0)
            continue;
        if (v->n_codes == VOCABULARY_CODES_MAX)
            return error_set(err, STATUS_INVALID, "the vocabulary has more than %d picture codes",
                             VOCABULARY_CODES_MAX);
        v->n_codes++;
    }
    if (v->n_codes == 0)
        return error_set(err, STATUS_INVALID,
                         "the vocabulary has no picture codes (IMGIMG, letters A to J, Z)");
    return STATUS_OK;
}

static enum status find_codes(struct vocabulary *v, const struct tokenizer *tokenizer,
                              struct error *err)
{
    int32_t *id_to_code = calloc((size_t)v->n_ids, sizeof(*id_to_code));
    v->id_to_code = id_to_code;
    if (!id_to_code)
        return error_set(err, STATUS_NOMEM, "cannot allocate the codes of %d ids", v->n_ids);
    enum status st = count_codes(v, tokenizer, id_to_code, err);
    if (st != STATUS_OK)
        return st;

    int32_t *code_to_id = calloc((size_t)v->n_codes, sizeof(*code_to_id));
    v->code_to_id = code_to_id;
    if (!code_to_id)
        return error_set(err, STATUS_NOMEM, "cannot allocate the ids of %d codes", v->n_codes);
    for (int code = 0; code < v->n_codes; code++)
        code_to_id[code] = -1;
    for (int32_t id = 0; id < v->n_ids; id++) {
        int code = id_to_code[id];
        if (code < 0)
            continue;
        const char *name = tokenizer_name(tokenizer, id);
        if (code >= v->n_codes)
            return error_set(
                err, STATUS_INVALID,
                "token '%s' is picture code %d, but there are only %d codes: expected 0 to %d",
                name, code, v->n_codes, v->n_codes - 1);
        if (code_to_id[code] >= 0)
            return error_set(err, STATUS_INVALID, "tokens '%s' and '%s' are both picture code %d",
                             tokenizer_name(tokenizer, code_to_id[code]), name, code);
        code_to_id[code] = id;
        if (v->code_id_min < 0)
            v->code_id_min = id;
        v->code_id_max = id;
    }
    return STATUS_OK;
}

static enum status find_sizes(struct vocabulary *v, const struct tokenizer *tokenizer,
                              struct error *err)
{
    int32_t *size_to_id = calloc(VOCABULARY_SIZES_MAX + 1, sizeof(*size_to_id));
    int32_t *id_to_size = calloc((size_t)v->n_ids, sizeof(*id_to_size));
    v->size_to_id = size_to_id;
    v->id_to_size = id_to_size;
    if (!size_to_id || !id_to_size)
        return error_set(err, STATUS_NOMEM, "cannot allocate the sizes of %d ids", v->n_ids);
    size_to_id[0] = -1;
    for (int size = 1; size <= VOCABULARY_SIZES_MAX; size++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof(name), "<reserved%05d>", SIZE_NAME_NUMBER + size);
        int32_t id = tokenizer_find(tokenizer, name);
        if (id < 0)
            break;
        size_to_id[size] = id;
        id_to_size[id] = size;
        v->n_sizes = size;
    }
    if (v->n_sizes == 0)
        return error_set(err, STATUS_INVALID,
                         "the vocabulary has no token '<reserved08801>' (a side of %d pixels)",
                         VOCABULARY_SIZE_PIXELS);
    return STATUS_OK;
}

enum status vocabulary_create(struct vocabulary **out, const struct tokenizer *tokenizer,
                              struct error *err)
{
    *out = NULL;
    struct vocabulary *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set(err, STATUS_NOMEM, "cannot allocate the vocabulary");
    v->n_ids = tokenizer_n_ids(tokenizer);
    v->code_id_min = -1;
    enum status st = find_names(v, tokenizer, err);
    if (st == STATUS_OK)
        st = find_codes(v, tokenizer, err);
    if (st == STATUS_OK)
        st = find_sizes(v, tokenizer, err);
    if (st != STATUS_OK) {
        vocabulary_destroy(v);
        return st;
    }
    *out = v;
    return STATUS_OK;
}

int vocabulary_code(const struct vocabulary *v, int32_t id)
{
    return id >= 0 && id < v->n_ids ? v->id_to_code[id] : -1;
}

int vocabulary_size_pixels(const struct vocabulary *v, int32_t id)
{
    return id >= 0 && id < v->n_ids ? v->id_to_size[id] * VOCABULARY_SIZE_PIXELS : 0;
}

int32_t vocabulary_size_id(const struct vocabulary *v, int pixels)
{
    if (pixels <= 0 || pixels % VOCABULARY_SIZE_PIXELS != 0)
        return -1;
    int size = pixels / VOCABULARY_SIZE_PIXELS;
    return size <= v->n_sizes ? v->size_to_id[size] : -1;
}
