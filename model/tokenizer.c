/*
 * tokenizer.c - reads a tokenizer.json and puts its parts together: added tokens, pre-tokenizer,
 * BPE, decoder.
 */
#include "model/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/file_bytes.h"
#include "model/hash_map.h"
#include "model/json_fields.h"
#include "model/pretokenizer.h"
#include "model/token_decoder.h"
#include "model/utf8.h"

struct tokenizer {
    char *name_bytes;   /* all names, each with a NUL behind it */
    const char **names; /* [n_ids] into name_bytes; NULL: no token has the id */
    int n_ids;
    struct name_map vocabulary; /* the model's own: what BPE may make */
    struct name_map all;        /* with the added tokens */
    struct added_tokens *added;
    struct pretokenizer *pretokenizer;
    struct bpe *bpe;
    struct token_decoder *decoder;
};

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t)
        return;
    bpe_destroy(t->bpe);
    token_decoder_destroy(t->decoder);
    pretokenizer_destroy(t->pretokenizer);
    added_tokens_destroy(t->added);
    name_map_fini(&t->all);
    name_map_fini(&t->vocabulary);
    free(t->names);
    free(t->name_bytes);
    free(t);
}

/* An id in [0, TOKENIZER_IDS_MAX). */
static enum status read_id(const json_t *value, const char *name, int32_t *id, struct error *err)
{
    char found[JSON_FIELDS_TEXT_BYTES];
    if (!json_is_integer(value))
        return error_set(err, STATUS_INVALID, "the id of '%.60s' is %s, expected an integer", name,
                         json_fields_describe(found, value));
    json_int_t number = json_integer_value(value);
    if (number < 0 || number >= TOKENIZER_IDS_MAX)
        return error_set(err, STATUS_INVALID, "the id of '%.60s' is %lld, expected 0 to %d", name,
                         (long long)number, TOKENIZER_IDS_MAX - 1);
    *id = (int32_t)number;
    return STATUS_OK;
}

/* What the tables must hold, counted before they are allocated. */
struct extent {
    size_t n_names, name_bytes;
    int32_t largest_id;
};

static enum status extend(struct extent *extent, const char *name, size_t bytes,
                          const json_t *value, struct error *err)
{
    int32_t id;
    enum status st = read_id(value, name, &id, err);
    if (st != STATUS_OK)
        return st;
    extent->n_names++;
    extent->name_bytes += bytes + 1;
    if (id > extent->largest_id)
        extent->largest_id = id;
    return STATUS_OK;
}

static enum status measure(struct extent *extent, json_t *vocabulary, const json_t *added,
                           struct error *err)
{
    *extent = (struct extent){.largest_id = -1};
    const char *name;
    json_t *value;
    json_object_foreach(vocabulary, name, value)
    {
        enum status st = extend(extent, name, strlen(name), value, err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "vocab");
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const json_t *content = json_object_get(token, "content");
        if (!json_is_string(content))
            return error_wrap(err, json_fields_refuse("content", content, "a string", err),
                              "added_tokens: entry %zu", i);
        enum status st = extend(extent, json_string_value(content), json_string_length(content),
                                json_object_get(token, "id"), err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "added_tokens");
    }
    if (extent->n_names == 0)
        return error_set(err, STATUS_INVALID, "the vocabulary is empty");
    return STATUS_OK;
}

static enum status allocate(struct tokenizer *t, const struct extent *extent, struct error *err)
{
    t->n_ids = extent->largest_id + 1;
    t->names = calloc((size_t)t->n_ids, sizeof(*t->names));
    t->name_bytes = malloc(extent->name_bytes);
    if (!t->names || !t->name_bytes)
        return error_set(err, STATUS_NOMEM, "cannot allocate the names of %d ids", t->n_ids);
    enum status st = name_map_init(&t->vocabulary, extent->n_names, err);
    if (st == STATUS_OK)
        st = name_map_init(&t->all, extent->n_names, err);
    if (st == STATUS_OK)
        st = added_tokens_create(&t->added, err);
    return st;
}

/* Takes a name into the tables; *end is where the next name's bytes go. */
static enum status add_name(struct tokenizer *t, const char *name, size_t bytes, int32_t id,
                            char **end, struct error *err)
{
    if (t->names[id])
        return error_set(err, STATUS_INVALID, "id %d is that of '%.60s' and of '%.60s'", id,
                         t->names[id], name);
    char *copy = *end;
    memcpy(copy, name, bytes);
    copy[bytes] = 0;
    *end += bytes + 1;
    t->names[id] = copy;
    return name_map_put(&t->all, copy, bytes, id, err);
}

static enum status read_vocabulary(struct tokenizer *t, json_t *vocabulary, char **end,
                                   struct error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(vocabulary, name, value)
    {
        size_t bytes = strlen(name);
        int32_t id = (int32_t)json_integer_value(value);
        enum status st = add_name(t, name, bytes, id, end, err);
        if (st == STATUS_OK)
            st = name_map_put(&t->vocabulary, t->names[id], bytes, id, err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "vocab");
    }
    return STATUS_OK;
}

static enum status read_added_token(struct tokenizer *t, const json_t *entry, char **end,
                                    struct error *err)
{
    const json_t *content = json_object_get(entry, "content");
    const char *name = json_string_value(content);
    size_t bytes = json_string_length(content);
    if (bytes == 0)
        return STATUS_OK; /* HF passes over empty ones, too */
    struct added_token token = {.id = (int32_t)json_integer_value(json_object_get(entry, "id"))};
    const struct {
        const char *name;
        bool *value;
    } flags[] = {{"single_word", &token.single_word},
                 {"lstrip", &token.lstrip},
                 {"rstrip", &token.rstrip},
                 {"normalized", &token.normalized}};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        const json_t *flag = json_object_get(entry, flags[i].name);
        if (flag && !json_is_boolean(flag))
            return error_wrap(err, json_fields_refuse(flags[i].name, flag, "true or false", err),
                              "'%.60s'", name);
        *flags[i].value = json_is_true(flag);
    }
    int32_t known = name_map_get(&t->all, name, bytes);
    if (known >= 0 && known != token.id)
        return error_set(err, STATUS_INVALID, "'%.60s' has id %d here and %d before", name,
                         token.id, known);
    enum status st = known < 0 ? add_name(t, name, bytes, token.id, end, err) : STATUS_OK;
    return st == STATUS_OK ? added_tokens_add(t->added, name, bytes, &token, err) : st;
}

static enum status read_added_tokens(struct tokenizer *t, const json_t *added, char **end,
                                     struct error *err)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        enum status st = read_added_token(t, json_array_get(added, i), end, err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "added_tokens");
    }
    return STATUS_OK;
}

/* The vocabulary of the model; NULL and an error when the file is of another kind. */
static enum status find_vocabulary(const json_t *root, json_t **vocabulary, struct error *err)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    if (normalizer && !json_is_null(normalizer)) {
        const char *type = json_string_value(json_object_get(normalizer, "type"));
        if (!type)
            return json_fields_refuse("normalizer", normalizer, "null", err);
        return error_set(err, STATUS_UNSUPPORTED,
                         "normalizer: type '%.60s' is not supported, expected null", type);
    }
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(model))
        return json_fields_refuse("model", model, "an object", err);
    const json_t *type = json_object_get(model, "type"); /* older files have none */
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        return error_set(err, STATUS_UNSUPPORTED,
                         "model: type '%.60s' is not supported, expected BPE",
                         json_is_string(type) ? json_string_value(type) : "(no string)");
    *vocabulary = json_object_get(model, "vocab");
    if (!json_is_object(*vocabulary))
        return json_fields_refuse("model.vocab", *vocabulary, "an object", err);
    return STATUS_OK;
}

static enum status read_tables(struct tokenizer *t, const json_t *root, struct error *err)
{
    json_t *vocabulary;
    enum status st = find_vocabulary(root, &vocabulary, err);
    if (st != STATUS_OK)
        return st;
    const json_t *added = json_object_get(root, "added_tokens");
    if (added && !json_is_null(added) && !json_is_array(added))
        return json_fields_refuse("added_tokens", added, "an array", err);
    struct extent extent;
    st = measure(&extent, vocabulary, added, err);
    if (st == STATUS_OK)
        st = allocate(t, &extent, err);
    char *end = t->name_bytes;
    if (st == STATUS_OK)
        st = read_vocabulary(t, vocabulary, &end, err);
    return st == STATUS_OK ? read_added_tokens(t, added, &end, err) : st;
}

static enum status read_root(struct tokenizer *t, const json_t *root, struct error *err)
{
    enum status st = read_tables(t, root, err);
    if (st == STATUS_OK)
        st = pretokenizer_create(&t->pretokenizer, json_object_get(root, "pre_tokenizer"), err);
    if (st == STATUS_OK)
        st = token_decoder_create(&t->decoder, json_object_get(root, "decoder"), err);
    if (st != STATUS_OK)
        return st;
    st = bpe_create(&t->bpe, json_object_get(root, "model"), &t->vocabulary, err);
    return st == STATUS_OK ? st : error_wrap(err, st, "model");
}

enum status tokenizer_create(struct tokenizer **out, const void *json, size_t bytes,
                             const char *name, struct error *err)
{
    *out = NULL;
    if (bytes > TOKENIZER_FILE_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         bytes, TOKENIZER_FILE_BYTES_MAX);
    json_t *root;
    enum status st = json_fields_parse(&root, json, bytes, name, err);
    if (st != STATUS_OK)
        return st;
    struct tokenizer *t = calloc(1, sizeof(*t));
    st = t ? read_root(t, root, err) : error_set(err, STATUS_NOMEM, "cannot allocate a tokenizer");
    json_decref(root);
    if (st != STATUS_OK) {
        tokenizer_destroy(t);
        return error_wrap(err, st, "'%s'", name);
    }
    *out = t;
    return STATUS_OK;
}

enum status tokenizer_open(struct tokenizer **out, const char *path, struct error *err)
{
    *out = NULL;
    unsigned char *json;
    size_t bytes;
    enum status st = file_bytes_read(&json, &bytes, path, TOKENIZER_FILE_BYTES_MAX, err);
    if (st != STATUS_OK)
        return st;
    st = tokenizer_create(out, json, bytes, path, err);
    free(json);
    return st;
}

/* What one call to tokenizer_encode() works with. */
struct encoding {
    struct regex_search search;
    struct words words;
    struct bpe_scratch scratch;
};

static enum status encode_text(const struct tokenizer *t, struct encoding *e, const char *text,
                               size_t bytes, struct ids *out, struct error *err)
{
    enum status st = pretokenizer_split(t->pretokenizer, text, bytes, &e->search, &e->words, err);
    for (size_t i = 0; i < e->words.n && st == STATUS_OK; i++) {
        struct span word = e->words.spans[i];
        st = bpe_encode(t->bpe, e->words.text.bytes + word.start, word.end - word.start,
                        &e->scratch, out, err);
    }
    return st;
}

static enum status encode_with_added(const struct tokenizer *t, struct encoding *e,
                                     const char *text, size_t bytes, struct ids *out,
                                     struct error *err)
{
    struct added_pieces pieces = {0};
    enum status st = added_tokens_find(t->added, text, bytes, &pieces, err);
    for (size_t i = 0; i < pieces.n && st == STATUS_OK; i++) {
        const struct added_piece *piece = &pieces.list[i];
        if (piece->id >= 0)
            st = ids_push(out, piece->id, err);
        else
            st = encode_text(t, e, text + piece->start, piece->end - piece->start, out, err);
    }
    added_pieces_fini(&pieces);
    return st;
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                             enum tokenizer_mode mode, struct ids *out, struct error *err)
{
    if (bytes > TOKENIZER_TEXT_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "a text of %zu bytes, expected at most %d", bytes,
                         TOKENIZER_TEXT_BYTES_MAX);
    size_t invalid = utf8_find_invalid(text, bytes);
    if (invalid < bytes)
        return error_set(err, STATUS_INVALID, "the text is no UTF-8: byte 0x%02x at %zu",
                         (uint8_t)text[invalid], invalid);
    struct encoding e = {0};
    size_t n_before = out->n;
    enum status st = regex_search_init(&e.search, err);
    if (st != STATUS_OK)
        return st;
    if (mode == TOKENIZER_ADDED)
        st = encode_with_added(t, &e, text, bytes, out, err);
    else
        st = encode_text(t, &e, text, bytes, out, err);
    if (st != STATUS_OK)
        out->n = n_before;
    bpe_scratch_fini(&e.scratch);
    words_fini(&e.words);
    regex_search_fini(&e.search);
    return st;
}

/* The names of ids as words; ids without one are left out. */
static enum status collect_names(const struct tokenizer *t, const int32_t *ids, size_t n,
                                 struct words *names, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_ids)
            return error_set(err, STATUS_INVALID, "id %d at place %zu, expected 0 to %d", ids[i], i,
                             t->n_ids - 1);
        const char *name = t->names[ids[i]];
        if (!name)
            continue;
        size_t start = names->text.n;
        if (start > TOKENIZER_TEXT_BYTES_MAX)
            return error_set(err, STATUS_INVALID, "the text of %zu ids is longer than %d bytes", n,
                             TOKENIZER_TEXT_BYTES_MAX);
        enum status st = text_buffer_append(&names->text, name, strlen(name), err);
        if (st == STATUS_OK)
            st = words_push(names, (uint32_t)start, (uint32_t)names->text.n, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, char **text,
                             size_t *bytes, struct error *err)
{
    *text = NULL;
    *bytes = 0;
    struct words names = {0};
    struct text_buffer out = {0};
    enum status st = collect_names(t, ids, n, &names, err);
    if (st == STATUS_OK)
        st = token_decoder_run(t->decoder, &names, &out, err);
    if (st == STATUS_OK)
        st = text_buffer_append(&out, "", 1, err);
    words_fini(&names);
    if (st != STATUS_OK) {
        text_buffer_fini(&out);
        return st;
    }
    *text = out.bytes;
    *bytes = out.n - 1;
    return STATUS_OK;
}

int tokenizer_n_ids(const struct tokenizer *t)
{
    return t->n_ids;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *name)
{
    return name_map_get(&t->all, name, strlen(name));
}

const char *tokenizer_name(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_ids ? t->names[id] : NULL;
}
