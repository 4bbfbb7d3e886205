/*
 * regex_syntax.c - goes over a pattern once, copies what both languages mean alike, respells or
 * refuses the rest.
 */
#include "model/regex_syntax.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

struct translation {
    struct text_buffer *out;
    const char *at, *end;
    bool in_class;
    bool class_start; /* just behind "[" or "[^", where "]" is a literal */
};

static enum status put(struct translation *t, const char *text, struct error *err)
{
    return text_buffer_append(t->out, text, strlen(text), err);
}

static enum status copy(struct translation *t, size_t n, struct error *err)
{
    enum status st = text_buffer_append(t->out, t->at, n, err);
    t->at += n;
    return st;
}

/* Escapes that stand for a set of characters; the set is spelled as it stands inside brackets. */
static const char *escape_set(char letter)
{
    switch (tolower((unsigned char)letter)) {
    case 'h':
        return "0-9a-fA-F";
    case 's':
        return "\\t-\\r\\x{85}\\p{Z}"; /* White_Space; PCRE2's own \s has U+180E too */
    case 'w':
        return REGEX_WORD_SET;
    default:
        return NULL;
    }
}

/* An escape that both languages have; its name in braces, as in \p{L}, goes along. */
static enum status copy_escape(struct translation *t, struct error *err)
{
    size_t n = 2;
    if (t->end - t->at > 2 && t->at[2] == '{' && strchr("pPxo", t->at[1])) {
        const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
        if (!close)
            return error_set(err, STATUS_INVALID, "\\%c{ without }", t->at[1]);
        n = (size_t)(close + 1 - t->at);
    }
    return copy(t, n, err);
}

static enum status translate_escape(struct translation *t, struct error *err)
{
    if (t->end - t->at < 2)
        return error_set(err, STATUS_INVALID, "a pattern ends in a backslash");
    char letter = t->at[1];
    const char *set = escape_set(letter);
    bool negated = set && isupper((unsigned char)letter);
    if (set && negated && t->in_class) {
        if (letter != 'S')
            return error_set(err, STATUS_UNSUPPORTED, "\\%c inside brackets is not supported",
                             letter);
        set = NULL; /* as good as equal: only U+180E differs */
    }
    if (set) {
        t->at += 2;
        enum status st = t->in_class ? STATUS_OK : put(t, negated ? "[^" : "[", err);
        if (st == STATUS_OK)
            st = put(t, set, err);
        /* Oniguruma's \w alone, not in brackets, has the superscripts and fractions of Latin-1 too.
         */
        if (st == STATUS_OK && !t->in_class && tolower((unsigned char)letter) == 'w')
            st = put(t, "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}", err);
        return st == STATUS_OK && !t->in_class ? put(t, "]", err) : st;
    }
    if (letter != 'u')
        return copy_escape(t, err);
    if (t->end - t->at < 6)
        return error_set(err, STATUS_INVALID, "\\u is not followed by four hexadecimal digits");
    t->at += 2;
    enum status st = put(t, "\\x{", err);
    if (st == STATUS_OK)
        st = copy(t, 4, err);
    return st == STATUS_OK ? put(t, "}", err) : st;
}

static enum status translate_in_class(struct translation *t, struct error *err)
{
    char c = *t->at;
    bool start = t->class_start;
    t->class_start = false;
    if (c == '\\')
        return translate_escape(t, err);
    if (c == ']' && !start) {
        t->in_class = false;
        return copy(t, 1, err);
    }
    if (c == '[' && (t->end - t->at < 2 || t->at[1] != ':'))
        return error_set(err, STATUS_UNSUPPORTED, "a class inside a class is not supported");
    if (c == '[') {
        const char *close = memmem(t->at, (size_t)(t->end - t->at), ":]", 2);
        return close ? copy(t, (size_t)(close + 2 - t->at), err) : copy(t, 1, err);
    }
    if (c == '&' && t->end - t->at >= 2 && t->at[1] == '&')
        return error_set(err, STATUS_UNSUPPORTED, "&& inside brackets is not supported");
    return copy(t, 1, err);
}

/* The length of a repetition {n}, {n,}, {,m} or {n,m} at `at`; 0 when the brace is a literal. */
static size_t repetition_length(const char *at, const char *end)
{
    const char *c = at + 1;
    int n_digits = 0;
    int n_commas = 0;
    for (; c < end && *c != '}'; c++) {
        n_digits += isdigit((unsigned char)*c) != 0;
        n_commas += *c == ',';
        if (!isdigit((unsigned char)*c) && *c != ',')
            return 0;
    }
    return c < end && n_digits > 0 && n_commas <= 1 ? (size_t)(c + 1 - at) : 0;
}

static enum status translate_brace(struct translation *t, struct error *err)
{
    size_t length = repetition_length(t->at, t->end);
    if (length == 0)
        return put(t, "\\", err) == STATUS_OK ? copy(t, 1, err) : STATUS_NOMEM;
    if (t->at + length < t->end && t->at[length] == '+')
        return error_set(err, STATUS_UNSUPPORTED, "+ behind {n,m} is not supported");
    if (t->at[1] != ',')
        return copy(t, length, err);
    t->at++;
    enum status st = put(t, "{0", err);
    return st == STATUS_OK ? copy(t, length - 1, err) : st;
}

/* (?m) lets the dot match new lines in Ruby; elsewhere that is (?s). The letters behind a minus are
 * translated alike. */
static enum status translate_group(struct translation *t, struct error *err)
{
    enum status st = copy(t, 2, err);
    const char *c = t->at;
    while (c < t->end && (*c == 'i' || *c == 'm' || *c == 'x' || *c == '-'))
        c++;
    if (c == t->end || (*c != ':' && *c != ')'))
        return st;
    while (st == STATUS_OK && t->at < c) {
        if (*t->at == 'm') {
            st = put(t, "s", err);
            t->at++;
        } else {
            st = copy(t, 1, err);
        }
    }
    return st;
}

static enum status translate_one(struct translation *t, struct error *err)
{
    if (t->in_class)
        return translate_in_class(t, err);
    switch (*t->at) {
    case '\\':
        return translate_escape(t, err);
    case '[':
        t->in_class = t->class_start = true;
        return copy(t, t->end - t->at >= 2 && t->at[1] == '^' ? 2 : 1, err);
    case '{':
        return translate_brace(t, err);
    case '(':
        return t->end - t->at >= 2 && t->at[1] == '?' ? translate_group(t, err) : copy(t, 1, err);
    default:
        return copy(t, 1, err);
    }
}

enum status regex_translate(struct text_buffer *out, const char *pattern, size_t bytes,
                            struct error *err)
{
    struct translation t = {.out = out, .at = pattern, .end = pattern + bytes};
    while (t.at < t.end) {
        enum status st = translate_one(&t, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}
