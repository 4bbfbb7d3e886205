/*
 * bpe.c - reads the merges and applies them.
 */
#include "model/bpe.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/json_fields.h"
#include "model/text_buffer.h"
#include "model/utf8.h"

enum { COMMON_CHARACTERS = 0x180 /* more than byte_level.h uses */, NAME_BYTES = 16 };

struct bpe {
    const struct name_map *vocabulary;
    struct number_map ranks; /* left id << 32 | right id -> place in the list of merges */
    int32_t *merged;         /* [n merges] the id a merge makes */
    char prefix[BPE_AFFIX_BYTES_MAX + 1], suffix[BPE_AFFIX_BYTES_MAX + 1];
    size_t prefix_bytes, suffix_bytes;
    int32_t unknown; /* -1: none */
    bool fuse_unknown, byte_fallback, ignore_merges;
    int32_t
        common[COMMON_CHARACTERS]; /* ids of frequent characters; used when there are no affixes */
    int32_t bytes[256];            /* ids of "<0x00>" ... "<0xFF>", -1 for what is missing */
};

struct bpe_symbol {
    int32_t id;
    int32_t previous, next; /* -1: none */
    bool gone;              /* merged into its left neighbour */
};

void bpe_destroy(struct bpe *bpe)
{
    if (!bpe)
        return;
    number_map_fini(&bpe->ranks);
    free(bpe->merged);
    free(bpe);
}

void bpe_scratch_fini(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (struct bpe_scratch){0};
}

static enum status read_affix(const json_t *model, const char *name, char *text, size_t *bytes,
                              struct error *err)
{
    const json_t *field = json_object_get(model, name);
    *bytes = 0;
    if (!field || json_is_null(field))
        return STATUS_OK;
    if (!json_is_string(field) || json_string_length(field) > BPE_AFFIX_BYTES_MAX)
        return json_fields_refuse(name, field, "a string of at most 64 bytes", err);
    *bytes = json_string_length(field);
    memcpy(text, json_string_value(field), *bytes);
    return STATUS_OK;
}

static enum status read_flag(const json_t *model, const char *name, bool *flag, struct error *err)
{
    const json_t *field = json_object_get(model, name);
    if (field && !json_is_null(field) && !json_is_boolean(field))
        return json_fields_refuse(name, field, "true or false", err);
    *flag = json_is_true(field);
    return STATUS_OK;
}

static enum status read_unknown(struct bpe *bpe, const json_t *model, struct error *err)
{
    const json_t *field = json_object_get(model, "unk_token");
    bpe->unknown = -1;
    if (!field || json_is_null(field))
        return STATUS_OK;
    if (!json_is_string(field))
        return json_fields_refuse("unk_token", field, "a string", err);
    bpe->unknown =
        name_map_get(bpe->vocabulary, json_string_value(field), json_string_length(field));
    if (bpe->unknown < 0)
        return error_set(err, STATUS_INVALID, "unk_token '%.60s' is not in the vocabulary",
                         json_string_value(field));
    return STATUS_OK;
}

static enum status read_options(struct bpe *bpe, const json_t *model, struct error *err)
{
    const json_t *dropout = json_object_get(model, "dropout");
    bool drops = json_is_number(dropout) ? json_number_value(dropout) != 0
                                         : dropout && !json_is_null(dropout);
    if (drops)
        return json_fields_refuse("dropout", dropout, "null or 0", err);
    enum status st =
        read_affix(model, "continuing_subword_prefix", bpe->prefix, &bpe->prefix_bytes, err);
    if (st == STATUS_OK)
        st = read_affix(model, "end_of_word_suffix", bpe->suffix, &bpe->suffix_bytes, err);
    if (st == STATUS_OK)
        st = read_flag(model, "fuse_unk", &bpe->fuse_unknown, err);
    if (st == STATUS_OK)
        st = read_flag(model, "byte_fallback", &bpe->byte_fallback, err);
    if (st == STATUS_OK)
        st = read_flag(model, "ignore_merges", &bpe->ignore_merges, err);
    if (st == STATUS_OK && bpe->byte_fallback && (bpe->prefix_bytes || bpe->suffix_bytes))
        st = error_set(
            err, STATUS_UNSUPPORTED,
            "'byte_fallback' together with a prefix or suffix of subwords is not supported");
    return st == STATUS_OK ? read_unknown(bpe, model, err) : st;
}

struct part {
    const char *text;
    size_t bytes;
};

/* A merge is "a b" in older files, ["a", "b"] in newer ones. */
static enum status read_parts(const json_t *merge, struct part parts[2], struct error *err)
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *part = json_array_get(merge, i);
            parts[i] = (struct part){json_string_value(part), json_string_length(part)};
        }
        if (parts[0].text && parts[1].text)
            return STATUS_OK;
    }
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        size_t bytes = json_string_length(merge);
        const char *space = memchr(text, ' ', bytes);
        if (space && !memchr(space + 1, ' ', bytes - (size_t)(space + 1 - text))) {
            parts[0] = (struct part){text, (size_t)(space - text)};
            parts[1] = (struct part){space + 1, bytes - (size_t)(space + 1 - text)};
            return STATUS_OK;
        }
    }
    char found[JSON_FIELDS_TEXT_BYTES];
    return error_set(err, STATUS_INVALID, "%s, expected \"a b\" or [\"a\", \"b\"]",
                     json_fields_describe(found, merge));
}

/* The ids of both parts and of what they make. The right part's prefix goes away in the result. */
static enum status find_parts(const struct bpe *bpe, const struct part parts[2], int32_t ids[3],
                              struct text_buffer *name, struct error *err)
{
    if (parts[1].bytes < bpe->prefix_bytes)
        return error_set(err, STATUS_INVALID, "part '%.60s' is shorter than the prefix '%s'",
                         parts[1].text, bpe->prefix);
    name->n = 0;
    enum status st = text_buffer_append(name, parts[0].text, parts[0].bytes, err);
    if (st == STATUS_OK)
        st = text_buffer_append(name, parts[1].text + bpe->prefix_bytes,
                                parts[1].bytes - bpe->prefix_bytes, err);
    if (st != STATUS_OK)
        return st;
    const struct part all[3] = {parts[0], parts[1], {name->bytes, name->n}};
    for (int i = 0; i < 3; i++) {
        ids[i] = name_map_get(bpe->vocabulary, all[i].text, all[i].bytes);
        if (ids[i] < 0)
            return error_set(err, STATUS_INVALID, "%s '%.*s' is not in the vocabulary",
                             i < 2 ? "part" : "result",
                             (int)(all[i].bytes < 60 ? all[i].bytes : 60), all[i].text);
    }
    return STATUS_OK;
}

/* Files converted from merges.txt may keep its first line. */
static bool is_version_line(const json_t *merge)
{
    const char *text = json_string_value(merge);
    return text && strncmp(text, "#version", 8) == 0;
}

static enum status read_merges(struct bpe *bpe, const json_t *model, struct error *err)
{
    const json_t *list = json_object_get(model, "merges");
    if (!json_is_array(list))
        return json_fields_refuse("merges", list, "an array", err);
    size_t n = json_array_size(list);
    bpe->merged = calloc(n ? n : 1, sizeof(*bpe->merged));
    if (!bpe->merged)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu merges", n);
    enum status st = number_map_init(&bpe->ranks, n, err);
    struct text_buffer name = {0};
    for (size_t i = 0; i < n && st == STATUS_OK; i++) {
        const json_t *merge = json_array_get(list, i);
        if (is_version_line(merge))
            continue;
        struct part parts[2];
        int32_t ids[3];
        st = read_parts(merge, parts, err);
        if (st == STATUS_OK)
            st = find_parts(bpe, parts, ids, &name, err);
        if (st != STATUS_OK) {
            error_wrap(err, st, "merge %zu", i);
            break;
        }
        bpe->merged[i] = ids[2];
        st = number_map_put(&bpe->ranks, (uint64_t)ids[0] << 32 | (uint32_t)ids[1], (uint32_t)i,
                            err);
    }
    text_buffer_fini(&name);
    return st;
}

static void fill_tables(struct bpe *bpe)
{
    for (uint32_t c = 0; c < COMMON_CHARACTERS; c++) {
        char text[UTF8_BYTES_MAX];
        bpe->common[c] = name_map_get(bpe->vocabulary, text, utf8_write(text, c));
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[NAME_BYTES];
        int n = snprintf(name, sizeof(name), "<0x%02X>", byte);
        bpe->bytes[byte] = name_map_get(bpe->vocabulary, name, (size_t)n);
    }
}

enum status bpe_create(struct bpe **out, const json_t *model, const struct name_map *vocabulary,
                       struct error *err)
{
    *out = NULL;
    struct bpe *bpe = calloc(1, sizeof(*bpe));
    if (!bpe)
        return error_set(err, STATUS_NOMEM, "cannot allocate a BPE model");
    bpe->vocabulary = vocabulary;
    enum status st = read_options(bpe, model, err);
    if (st == STATUS_OK)
        st = read_merges(bpe, model, err);
    if (st != STATUS_OK) {
        bpe_destroy(bpe);
        return st;
    }
    fill_tables(bpe);
    *out = bpe;
    return STATUS_OK;
}

/* Room for the symbols of a word, at most one a byte, and for its heap: n - 1 pairs, and two new
 * ones for each merge. */
static enum status reserve(struct bpe_scratch *s, size_t bytes, struct error *err)
{
    s->n_symbols = s->n_heap = 0;
    if (bytes > s->symbols_capacity) {
        size_t capacity = bytes < 64 ? 64 : bytes;
        void *symbols = reallocarray(s->symbols, capacity, sizeof(*s->symbols));
        if (symbols)
            s->symbols = symbols;
        void *heap = reallocarray(s->heap, capacity * 3, sizeof(*s->heap));
        if (heap)
            s->heap = heap;
        if (!symbols || !heap)
            return error_set(err, STATUS_NOMEM, "cannot allocate a word of %zu bytes", bytes);
        s->symbols_capacity = capacity;
        s->heap_capacity = capacity * 3;
    }
    return STATUS_OK;
}

static void add_symbol(struct bpe_scratch *s, int32_t id)
{
    int32_t n = (int32_t)s->n_symbols;
    if (n > 0)
        s->symbols[n - 1].next = n;
    s->symbols[n] = (struct bpe_symbol){.id = id, .previous = n - 1, .next = -1};
    s->n_symbols++;
}

/* The id of one character of a word, with the affixes its place asks for; -1 when the vocabulary
 * has none. */
static int32_t character_id(const struct bpe *bpe, const char *c, size_t length, bool first,
                            bool last)
{
    bool prefixed = !first && bpe->prefix_bytes > 0;
    bool suffixed = last && bpe->suffix_bytes > 0;
    if (!prefixed && !suffixed) {
        size_t ignored;
        uint32_t code_point = utf8_read(c, &ignored);
        if (code_point < COMMON_CHARACTERS)
            return bpe->common[code_point];
        return name_map_get(bpe->vocabulary, c, length);
    }
    char name[2 * BPE_AFFIX_BYTES_MAX + UTF8_BYTES_MAX];
    size_t n = 0;
    if (prefixed) {
        memcpy(name, bpe->prefix, bpe->prefix_bytes);
        n = bpe->prefix_bytes;
    }
    memcpy(name + n, c, length);
    n += length;
    if (suffixed) {
        memcpy(name + n, bpe->suffix, bpe->suffix_bytes);
        n += bpe->suffix_bytes;
    }
    return name_map_get(bpe->vocabulary, name, n);
}

/* The bytes of a character as "<0xNN>" tokens; false when one is missing. */
static bool add_bytes(const struct bpe *bpe, const char *c, size_t length, struct bpe_scratch *s)
{
    for (size_t i = 0; i < length; i++)
        if (bpe->bytes[(uint8_t)c[i]] < 0)
            return false;
    for (size_t i = 0; i < length; i++)
        add_symbol(s, bpe->bytes[(uint8_t)c[i]]);
    return true;
}

/*
 * The symbols of a word before any merge. An unknown character waits before it is added, so that
 * the next one may fuse with it; bytes of a fallback pass it by, as they do in HF.
 */
static void add_characters(const struct bpe *bpe, const char *word, size_t bytes,
                           struct bpe_scratch *s)
{
    bool waiting = false;
    size_t length;
    for (size_t at = 0; at < bytes; at += length) {
        utf8_read(word + at, &length);
        bool first = at == 0;
        bool last = at + length == bytes;
        int32_t id = character_id(bpe, word + at, length, first, last);
        if (id < 0 && bpe->byte_fallback && add_bytes(bpe, word + at, length, s))
            continue;
        if (id < 0 && bpe->unknown < 0)
            continue;
        if (waiting && (id >= 0 || !bpe->fuse_unknown))
            add_symbol(s, bpe->unknown);
        waiting = id < 0;
        if (id >= 0)
            add_symbol(s, id);
    }
    if (waiting)
        add_symbol(s, bpe->unknown);
}

/* The heap holds rank << 32 | place of the left symbol: the smallest is the next merge. */
static void heap_push(struct bpe_scratch *s, uint64_t item)
{
    size_t i = s->n_heap++;
    while (i > 0 && s->heap[(i - 1) / 2] > item) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = item;
}

static uint64_t heap_pop(struct bpe_scratch *s)
{
    uint64_t top = s->heap[0];
    uint64_t item = s->heap[--s->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && s->heap[child + 1] < s->heap[child])
            child++;
        if (s->heap[child] >= item)
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = item;
    return top;
}

static const uint32_t *pair_rank(const struct bpe *bpe, const struct bpe_scratch *s, int32_t left)
{
    const struct bpe_symbol *symbol = &s->symbols[left];
    return number_map_get(&bpe->ranks,
                          (uint64_t)symbol->id << 32 | (uint32_t)s->symbols[symbol->next].id);
}

static void push_pair(const struct bpe *bpe, struct bpe_scratch *s, int32_t left)
{
    if (left < 0 || s->symbols[left].next < 0)
        return;
    const uint32_t *rank = pair_rank(bpe, s, left);
    if (rank)
        heap_push(s, (uint64_t)*rank << 32 | (uint32_t)left);
}

static void merge_all(const struct bpe *bpe, struct bpe_scratch *s)
{
    for (int32_t i = 0; i + 1 < (int32_t)s->n_symbols; i++)
        push_pair(bpe, s, i);
    while (s->n_heap > 0) {
        uint64_t item = heap_pop(s);
        int32_t left = (int32_t)(uint32_t)item;
        int32_t merged = bpe->merged[item >> 32];
        struct bpe_symbol *symbol = &s->symbols[left];
        if (symbol->gone || symbol->next < 0)
            continue;
        /* The pair may have changed since it was pushed; what counts is what it would make now. */
        const uint32_t *rank = pair_rank(bpe, s, left);
        if (!rank || bpe->merged[*rank] != merged)
            continue;
        struct bpe_symbol *right = &s->symbols[symbol->next];
        symbol->id = merged;
        symbol->next = right->next;
        right->gone = true;
        if (symbol->next >= 0)
            s->symbols[symbol->next].previous = left;
        push_pair(bpe, s, symbol->previous);
        push_pair(bpe, s, left);
    }
}

enum status bpe_encode(const struct bpe *bpe, const char *word, size_t bytes, struct bpe_scratch *s,
                       struct ids *out, struct error *err)
{
    if (bpe->ignore_merges) {
        int32_t id = name_map_get(bpe->vocabulary, word, bytes);
        if (id >= 0)
            return ids_push(out, id, err);
    }
    enum status st = reserve(s, bytes, err);
    if (st != STATUS_OK)
        return st;
    add_characters(bpe, word, bytes, s);
    merge_all(bpe, s);
    for (int32_t i = s->n_symbols ? 0 : -1; i >= 0 && st == STATUS_OK; i = s->symbols[i].next)
        st = ids_push(out, s->symbols[i].id, err);
    return st;
}
