/*
 * token_decoder.c - reads the decoder of a tokenizer.json and runs its steps over names of tokens.
 */
#include "model/token_decoder.h"

#include <stdlib.h>
#include <string.h>

#include "model/byte_level.h"
#include "model/json_fields.h"
#include "model/utf8.h"

enum { NESTING_MAX = 16, BYTE_NAME_BYTES = 6 };

enum decoder_step { STEP_BYTE_LEVEL, STEP_BYTE_FALLBACK, STEP_FUSE };

struct token_decoder {
    bool joins_by_spaces; /* there is no decoder in the file */
    int n_steps;
    enum decoder_step steps[TOKEN_DECODER_STEPS_MAX];
};

void token_decoder_destroy(struct token_decoder *decoder)
{
    free(decoder);
}

static enum status read_spec(struct token_decoder *d, const json_t *spec, int depth,
                             struct error *err)
{
    static const char *const types[] = {"ByteLevel", "ByteFallback", "Fuse"};
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type)
        return json_fields_refuse("type", json_object_get(spec, "type"), "a string", err);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "decoders");
        if (!json_is_array(list))
            return json_fields_refuse("Sequence.decoders", list, "an array", err);
        if (depth == NESTING_MAX)
            return error_set(err, STATUS_INVALID, "Sequence: nested more than %d deep",
                             NESTING_MAX);
        enum status st = STATUS_OK;
        for (size_t i = 0; i < json_array_size(list) && st == STATUS_OK; i++)
            st = read_spec(d, json_array_get(list, i), depth + 1, err);
        return st;
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(type, types[i]) != 0)
            continue;
        if (d->n_steps == TOKEN_DECODER_STEPS_MAX)
            return error_set(err, STATUS_INVALID, "more than %d steps", TOKEN_DECODER_STEPS_MAX);
        d->steps[d->n_steps++] = (enum decoder_step)i;
        return STATUS_OK;
    }
    return error_set(
        err, STATUS_UNSUPPORTED,
        "type '%.60s' is not supported, expected Sequence, ByteLevel, ByteFallback or Fuse", type);
}

enum status token_decoder_create(struct token_decoder **out, const json_t *spec, struct error *err)
{
    *out = NULL;
    struct token_decoder *d = calloc(1, sizeof(*d));
    if (!d)
        return error_set(err, STATUS_NOMEM, "cannot allocate a decoder");
    enum status st = STATUS_OK;
    if (!spec || json_is_null(spec))
        d->joins_by_spaces = true;
    else
        st = read_spec(d, spec, 0, err);
    if (st != STATUS_OK) {
        token_decoder_destroy(d);
        return error_wrap(err, st, "decoder");
    }
    *out = d;
    return STATUS_OK;
}

/* The bytes of a word; an empty one may have no text behind it. */
static const char *word_text(const struct words *words, struct span word)
{
    return word.start < word.end ? words->text.bytes + word.start : "";
}

static const char replacement[] = "\xef\xbf\xbd";

/* Appends bytes as text; each longest beginning of a sequence that goes wrong becomes one U+FFFD
 * (as in Rust's from_utf8_lossy). */
static enum status append_lossy(struct text_buffer *text, const char *bytes, size_t n,
                                struct error *err)
{
    enum status st = STATUS_OK;
    size_t at = 0;
    while (at < n && st == STATUS_OK) {
        size_t good = utf8_find_invalid(bytes + at, n - at);
        st = text_buffer_append(text, bytes + at, good, err);
        at += good;
        if (at == n || st != STATUS_OK)
            break;
        size_t bad;
        utf8_length(bytes + at, n - at, &bad);
        st = text_buffer_append(text, replacement, sizeof(replacement) - 1, err);
        at += bad;
    }
    return st;
}

/* The bytes a name spells; a name with any other character stands as it is. */
static enum status append_spelled(struct text_buffer *bytes, const char *name, size_t n,
                                  struct error *err)
{
    size_t start = bytes->n;
    size_t length;
    for (size_t at = 0; at < n; at += length) {
        int byte = byte_level_byte(utf8_read(name + at, &length));
        if (byte < 0) {
            bytes->n = start;
            return text_buffer_append(bytes, name, n, err);
        }
        char c = (char)byte;
        enum status st = text_buffer_append(bytes, &c, 1, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

static enum status run_byte_level(struct words *words, struct words *out, struct error *err)
{
    struct text_buffer bytes = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < words->n && st == STATUS_OK; i++) {
        struct span word = words->spans[i];
        st = append_spelled(&bytes, word_text(words, word), word.end - word.start, err);
    }
    if (st == STATUS_OK)
        st = append_lossy(&out->text, bytes.bytes, bytes.n, err);
    text_buffer_fini(&bytes);
    return st == STATUS_OK ? words_push(out, 0, (uint32_t)out->text.n, err) : st;
}

static enum status run_fuse(struct words *words, struct words *out, struct error *err)
{
    enum status st = STATUS_OK;
    for (size_t i = 0; i < words->n && st == STATUS_OK; i++) {
        struct span word = words->spans[i];
        st = text_buffer_append(&out->text, word_text(words, word), word.end - word.start, err);
    }
    return st == STATUS_OK ? words_push(out, 0, (uint32_t)out->text.n, err) : st;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that a name like <0x0A> stands for; -1 for other names. */
static int named_byte(const char *name, size_t n)
{
    if (n != BYTE_NAME_BYTES || memcmp(name, "<0x", 3) != 0 || name[5] != '>')
        return -1;
    int high = hex_digit(name[3]);
    int low = hex_digit(name[4]);
    return high >= 0 && low >= 0 ? high << 4 | low : -1;
}

static enum status push_text(struct words *out, const char *text, size_t n, struct error *err)
{
    size_t start = out->text.n;
    enum status st = text_buffer_append(&out->text, text, n, err);
    return st == STATUS_OK ? words_push(out, (uint32_t)start, (uint32_t)out->text.n, err) : st;
}

/* A run of named bytes is text when it is UTF-8 as a whole; else each byte is U+FFFD. */
static enum status flush_bytes(struct text_buffer *run, struct words *out, struct error *err)
{
    enum status st = STATUS_OK;
    if (run->n > 0 && utf8_find_invalid(run->bytes, run->n) == run->n)
        st = push_text(out, run->bytes, run->n, err);
    else
        for (size_t i = 0; i < run->n && st == STATUS_OK; i++)
            st = push_text(out, replacement, sizeof(replacement) - 1, err);
    run->n = 0;
    return st;
}

static enum status run_byte_fallback(struct words *words, struct words *out, struct error *err)
{
    struct text_buffer run = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < words->n && st == STATUS_OK; i++) {
        const char *name = word_text(words, words->spans[i]);
        size_t n = words->spans[i].end - words->spans[i].start;
        int byte = named_byte(name, n);
        if (byte >= 0) {
            char c = (char)byte;
            st = text_buffer_append(&run, &c, 1, err);
            continue;
        }
        st = flush_bytes(&run, out, err);
        if (st == STATUS_OK)
            st = push_text(out, name, n, err);
    }
    if (st == STATUS_OK)
        st = flush_bytes(&run, out, err);
    text_buffer_fini(&run);
    return st;
}

static enum status run_step(enum decoder_step step, struct words *words, struct error *err)
{
    struct words out = {0};
    enum status st = STATUS_INTERNAL;
    switch (step) {
    case STEP_BYTE_LEVEL:
        st = run_byte_level(words, &out, err);
        break;
    case STEP_BYTE_FALLBACK:
        st = run_byte_fallback(words, &out, err);
        break;
    case STEP_FUSE:
        st = run_fuse(words, &out, err);
        break;
    }
    words_fini(words);
    *words = out;
    return st;
}

enum status token_decoder_run(const struct token_decoder *d, struct words *names,
                              struct text_buffer *text, struct error *err)
{
    enum status st = STATUS_OK;
    for (int i = 0; i < d->n_steps && st == STATUS_OK; i++)
        st = run_step(d->steps[i], names, err);
    for (size_t i = 0; i < names->n && st == STATUS_OK; i++) {
        struct span word = names->spans[i];
        if (i > 0 && d->joins_by_spaces)
            st = text_buffer_append(text, " ", 1, err);
        if (st == STATUS_OK)
            st = text_buffer_append(text, word_text(names, word), word.end - word.start, err);
    }
    return st;
}
