/*
 * conversation.c - a list of parts, filled by calls or from JSON, turned into ids.
 */
#include "model/conversation.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/json_fields.h"
#include "model/text_buffer.h"

enum part_kind { PART_TEXT, PART_PICTURE, PART_END_OF_TURN };

struct part {
    enum part_kind kind;
    size_t start, end; /* PART_TEXT: in conversation.text */
    int picture_index; /* PART_PICTURE */
};

struct conversation {
    struct part *parts; /* [n_parts] */
    size_t n_parts, capacity;
    struct text_buffer text; /* of all texts, one behind the other */
    int n_pictures;          /* one past the largest index */
    int n_marks;             /* seen by conversation_add_marked() */
    char **files;            /* [n_files] from the JSON form */
    size_t n_files;
};

enum status conversation_create(struct conversation **out, struct error *err)
{
    *out = calloc(1, sizeof(**out));
    return *out ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate a conversation");
}

void conversation_destroy(struct conversation *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_files; i++)
        free(c->files[i]);
    free(c->files);
    free(c->parts);
    text_buffer_fini(&c->text);
    free(c);
}

static enum status add_part(struct conversation *c, struct part part, struct error *err)
{
    if (c->n_parts == CONVERSATION_PARTS_MAX)
        return error_set(err, STATUS_INVALID, "a conversation of more than %d parts",
                         CONVERSATION_PARTS_MAX);
    if (c->n_parts == c->capacity) {
        size_t capacity = c->capacity ? c->capacity * 2 : 16;
        struct part *parts = reallocarray(c->parts, capacity, sizeof(*parts));
        if (!parts)
            return error_set(err, STATUS_NOMEM, "cannot allocate a conversation of %zu parts",
                             capacity);
        c->parts = parts;
        c->capacity = capacity;
    }
    c->parts[c->n_parts++] = part;
    return STATUS_OK;
}

enum status conversation_add_text(struct conversation *c, const char *text, size_t bytes,
                                  struct error *err)
{
    size_t start = c->text.n;
    if (bytes > CONVERSATION_TEXT_BYTES_MAX - start)
        return error_set(err, STATUS_INVALID, "the texts of a conversation pass %d bytes",
                         CONVERSATION_TEXT_BYTES_MAX);
    if (bytes == 0)
        return STATUS_OK;
    enum status st = text_buffer_append(&c->text, text, bytes, err);
    if (st != STATUS_OK)
        return st;
    struct part *last = c->n_parts ? &c->parts[c->n_parts - 1] : NULL;
    if (last && last->kind == PART_TEXT) {
        last->end = c->text.n;
        return STATUS_OK;
    }
    return add_part(c, (struct part){.kind = PART_TEXT, .start = start, .end = c->text.n}, err);
}

enum status conversation_add_picture(struct conversation *c, int picture_index, struct error *err)
{
    if (picture_index < 0 || picture_index >= CONVERSATION_PICTURES_MAX)
        return error_set(err, STATUS_INVALID, "picture %d of a conversation, expected at most %d",
                         picture_index + 1, CONVERSATION_PICTURES_MAX);
    enum status st =
        add_part(c, (struct part){.kind = PART_PICTURE, .picture_index = picture_index}, err);
    if (st == STATUS_OK && picture_index >= c->n_pictures)
        c->n_pictures = picture_index + 1;
    return st;
}

enum status conversation_end_turn(struct conversation *c, struct error *err)
{
    return add_part(c, (struct part){.kind = PART_END_OF_TURN}, err);
}

static const char mark[] = CONVERSATION_PICTURE_MARK;
enum { MARK_BYTES = sizeof(mark) - 1 };

enum status conversation_add_marked(struct conversation *c, const char *text, size_t bytes,
                                    struct error *err)
{
    const char *end = text + bytes;
    for (;;) {
        const char *place = memmem(text, (size_t)(end - text), mark, MARK_BYTES);
        const char *stop = place ? place : end;
        enum status st = conversation_add_text(c, text, (size_t)(stop - text), err);
        if (st != STATUS_OK || !place)
            return st;
        st = conversation_add_picture(c, c->n_marks++, err);
        if (st != STATUS_OK)
            return st;
        text = place + MARK_BYTES;
    }
}

enum status conversation_add_text_to_image(struct conversation *c, const char *prompt, size_t bytes,
                                           struct picture_size size, struct error *err)
{
    char template[128];
    int n = snprintf(template, sizeof(template),
                     "Generate an image of %dx%d according to the following prompt:\n", size.width,
                     size.height);
    enum status st = conversation_add_text(c, template, (size_t)n, err);
    if (st == STATUS_OK)
        st = conversation_add_text(c, prompt, bytes, err);
    return st == STATUS_OK ? conversation_end_turn(c, err) : st;
}

int conversation_n_pictures(const struct conversation *c)
{
    return c->n_pictures > (int)c->n_files ? c->n_pictures : (int)c->n_files;
}

const char *conversation_picture_file(const struct conversation *c, int index)
{
    return index >= 0 && (size_t)index < c->n_files ? c->files[index] : NULL;
}

static enum status read_files(struct conversation *c, const json_t *images, struct error *err)
{
    if (!images || json_is_null(images))
        return STATUS_OK;
    size_t n = json_array_size(images);
    if (!json_is_array(images) || n > CONVERSATION_PICTURES_MAX)
        return json_fields_refuse("images", images, "an array of at most 64 file names", err);
    c->files = calloc(n ? n : 1, sizeof(*c->files));
    if (!c->files)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu file names", n);
    for (size_t i = 0; i < n; i++) {
        const char *file = json_string_value(json_array_get(images, i));
        if (!file || !*file)
            return error_wrap(err,
                              json_fields_refuse("file name", json_array_get(images, i),
                                                 "a string that is not empty", err),
                              "'images' entry %zu", i);
        c->files[i] = strdup(file);
        if (!c->files[i])
            return error_set(err, STATUS_NOMEM, "cannot allocate a file name");
        c->n_files = i + 1;
    }
    return STATUS_OK;
}

static int count_marks(const json_t *text)
{
    int n = 0;
    const char *at = json_string_value(text);
    while (at && (at = strstr(at, mark))) {
        at += MARK_BYTES;
        n++;
    }
    return n;
}

/* Every pair is [question, answer]; only the last answer may be null. *n_marks: of all texts. */
static enum status check_turns(const json_t *qas, int *n_marks, struct error *err)
{
    size_t n = json_array_size(qas);
    if (n == 0)
        return json_fields_refuse("qas", qas, "an array of [question, answer]", err);
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(qas, i);
        const json_t *question = json_array_get(pair, 0);
        const json_t *answer = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_string(question) ||
            !(json_is_string(answer) || json_is_null(answer)))
            return error_set(err, STATUS_INVALID,
                             "'qas' entry %zu is not [\"question\", \"answer\" or null]", i);
        if (json_is_null(answer) && i + 1 < n)
            return error_set(err, STATUS_INVALID,
                             "'qas' entry %zu: only the last answer may be null", i);
        *n_marks += count_marks(question) + count_marks(answer);
    }
    return STATUS_OK;
}

static enum status add_turn(struct conversation *c, const json_t *text, struct error *err)
{
    if (json_is_null(text))
        return STATUS_OK;
    enum status st =
        conversation_add_marked(c, json_string_value(text), json_string_length(text), err);
    return st == STATUS_OK ? conversation_end_turn(c, err) : st;
}

static enum status read_turns(struct conversation *c, const json_t *qas, struct error *err)
{
    int n_marks = 0;
    enum status st = check_turns(qas, &n_marks, err);
    if (st != STATUS_OK)
        return st;
    if (n_marks > 0 && n_marks != (int)c->n_files)
        return error_set(err, STATUS_INVALID,
                         "%d marks %s for %zu images: expected one each, or none", n_marks, mark,
                         c->n_files);
    for (size_t i = 0; i < c->n_files && n_marks == 0 && st == STATUS_OK; i++) {
        st = conversation_add_picture(c, (int)i, err);
        if (st == STATUS_OK)
            st = conversation_add_text(c, " ", 1, err);
    }
    for (size_t i = 0; i < json_array_size(qas) && st == STATUS_OK; i++) {
        const json_t *pair = json_array_get(qas, i);
        st = add_turn(c, json_array_get(pair, 0), err);
        if (st == STATUS_OK)
            st = add_turn(c, json_array_get(pair, 1), err);
    }
    return st;
}

static enum status read_root(struct conversation *c, const json_t *root, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        if (strcmp(key, "images") != 0 && strcmp(key, "qas") != 0)
            return error_set(err, STATUS_INVALID, "field '%.60s', expected 'images' and 'qas'",
                             key);
    }
    enum status st = read_files(c, json_object_get(root, "images"), err);
    return st == STATUS_OK ? read_turns(c, json_object_get(root, "qas"), err) : st;
}

enum status conversation_parse(struct conversation **out, const void *json, size_t bytes,
                               const char *name, struct error *err)
{
    *out = NULL;
    if (bytes > CONVERSATION_TEXT_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         bytes, CONVERSATION_TEXT_BYTES_MAX);
    json_t *root;
    enum status st = json_fields_parse(&root, json, bytes, name, err);
    if (st != STATUS_OK)
        return st;
    struct conversation *c;
    st = conversation_create(&c, err);
    if (st == STATUS_OK)
        st = read_root(c, root, err);
    json_decref(root);
    if (st != STATUS_OK) {
        conversation_destroy(c);
        return error_wrap(err, st, "'%s'", name);
    }
    *out = c;
    return STATUS_OK;
}

enum status conversation_encode(const struct conversation *c, const struct tokenizer *tokenizer,
                                const struct vocabulary *vocabulary, const struct ids *pictures,
                                int n_pictures, struct ids *out, struct error *err)
{
    size_t n_before = out->n;
    enum status st = ids_push(out, vocabulary->bos, err);
    for (size_t i = 0; i < c->n_parts && st == STATUS_OK; i++) {
        const struct part *part = &c->parts[i];
        switch (part->kind) {
        case PART_TEXT:
            st = tokenizer_encode(tokenizer, c->text.bytes + part->start, part->end - part->start,
                                  TOKENIZER_PLAIN, out, err);
            break;
        case PART_PICTURE:
            if (part->picture_index >= n_pictures)
                st = error_set(err, STATUS_INVALID, "picture %d of a conversation with %d pictures",
                               part->picture_index + 1, n_pictures);
            else
                st = ids_append(out, pictures[part->picture_index].ids,
                                pictures[part->picture_index].n, err);
            break;
        case PART_END_OF_TURN:
            st = ids_push(out, vocabulary->end_of_turn, err);
            break;
        }
    }
    if (st != STATUS_OK)
        out->n = n_before;
    return st;
}
