/*
 * added_tokens.c - two tries over bytes, walked from each place of the text.
 */
#include "model/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "model/hash_map.h"
#include "model/regex.h"
#include "model/regex_syntax.h"
#include "model/utf8.h"

#define PATTERN_WORD_CHARACTER "[" REGEX_WORD_SET "\\x{200c}\\x{200d}]" /* \w in Rust's regex */

enum { N_TRIES = 2 }; /* [0] tokens not normalized, [1] the others */

struct trie {
    struct number_map edges; /* node << 8 | byte -> node; node 0 is the root */
    struct number_map ends;  /* node -> index of its token */
    uint32_t n_nodes;
    bool starts[256]; /* bytes that leave the root */
};

struct added_tokens {
    struct trie tries[N_TRIES];
    struct added_token *tokens; /* [n] */
    size_t n, capacity;
    struct regex *word_character; /* NULL until a token is single_word */
};

void added_pieces_fini(struct added_pieces *pieces)
{
    free(pieces->list);
    *pieces = (struct added_pieces){0};
}

void added_tokens_destroy(struct added_tokens *added)
{
    if (!added)
        return;
    for (int i = 0; i < N_TRIES; i++) {
        number_map_fini(&added->tries[i].edges);
        number_map_fini(&added->tries[i].ends);
    }
    regex_destroy(added->word_character);
    free(added->tokens);
    free(added);
}

enum status added_tokens_create(struct added_tokens **out, struct error *err)
{
    *out = NULL;
    struct added_tokens *added = calloc(1, sizeof(*added));
    if (!added)
        return error_set(err, STATUS_NOMEM, "cannot allocate the added tokens");
    enum status st = STATUS_OK;
    for (int i = 0; i < N_TRIES && st == STATUS_OK; i++) {
        added->tries[i].n_nodes = 1;
        st = number_map_init(&added->tries[i].edges, 0, err);
        if (st == STATUS_OK)
            st = number_map_init(&added->tries[i].ends, 0, err);
    }
    if (st != STATUS_OK) {
        added_tokens_destroy(added);
        return st;
    }
    *out = added;
    return STATUS_OK;
}

static enum status trie_add(struct trie *trie, const char *content, size_t bytes, uint32_t index,
                            struct error *err)
{
    uint32_t node = 0;
    for (size_t i = 0; i < bytes; i++) {
        uint64_t key = (uint64_t)node << 8 | (uint8_t)content[i];
        const uint32_t *next = number_map_get(&trie->edges, key);
        if (next) {
            node = *next;
            continue;
        }
        enum status st = number_map_put(&trie->edges, key, trie->n_nodes, err);
        if (st != STATUS_OK)
            return st;
        node = trie->n_nodes++;
    }
    trie->starts[(uint8_t)content[0]] = true;
    return number_map_put(&trie->ends, node, index, err);
}

/* The longest token that starts at text[0]: its length, 0 when there is none. */
static size_t trie_match(const struct trie *trie, const char *text, size_t bytes, uint32_t *index)
{
    size_t longest = 0;
    uint32_t node = 0;
    if (!trie->starts[(uint8_t)text[0]])
        return 0;
    for (size_t i = 0; i < bytes; i++) {
        const uint32_t *next = number_map_get(&trie->edges, (uint64_t)node << 8 | (uint8_t)text[i]);
        if (!next)
            break;
        node = *next;
        const uint32_t *end = number_map_get(&trie->ends, node);
        if (end) {
            longest = i + 1;
            *index = *end;
        }
    }
    return longest;
}

enum status added_tokens_add(struct added_tokens *added, const char *content, size_t bytes,
                             const struct added_token *token, struct error *err)
{
    if (bytes == 0 || bytes > ADDED_TOKEN_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "an added token of %zu bytes, expected 1 to %d",
                         bytes, ADDED_TOKEN_BYTES_MAX);
    if (token->single_word && !added->word_character) {
        enum status st = regex_create(&added->word_character, PATTERN_WORD_CHARACTER,
                                      sizeof(PATTERN_WORD_CHARACTER) - 1, REGEX_RUBY, err);
        if (st != STATUS_OK)
            return st;
    }
    if (added->n == added->capacity) {
        size_t capacity = added->capacity ? added->capacity * 2 : 64;
        struct added_token *tokens = reallocarray(added->tokens, capacity, sizeof(*tokens));
        if (!tokens)
            return error_set(err, STATUS_NOMEM, "cannot allocate %zu added tokens", capacity);
        added->tokens = tokens;
        added->capacity = capacity;
    }
    added->tokens[added->n] = *token;
    struct trie *trie = &added->tries[token->normalized ? 1 : 0];
    return trie_add(trie, content, bytes, (uint32_t)added->n++, err);
}

static enum status push_piece(struct added_pieces *pieces, size_t start, size_t end, int32_t id,
                              struct error *err)
{
    if (start == end)
        return STATUS_OK;
    if (pieces->n == pieces->capacity) {
        size_t capacity = pieces->capacity ? pieces->capacity * 2 : 16;
        struct added_piece *list = reallocarray(pieces->list, capacity, sizeof(*list));
        if (!list)
            return error_set(err, STATUS_NOMEM, "cannot allocate %zu pieces of a text", capacity);
        pieces->list = list;
        pieces->capacity = capacity;
    }
    pieces->list[pieces->n++] = (struct added_piece){.start = start, .end = end, .id = id};
    return STATUS_OK;
}

static bool is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* The start of the character that ends at text[at). */
static size_t step_back(const char *text, size_t at)
{
    do
        at--;
    while (((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

/* One pass over a stretch of the text with one trie. */
struct finder {
    const struct added_tokens *added;
    const struct trie *trie;
    const char *text;
    size_t from, to;            /* the stretch; what lies outside is not seen */
    struct regex_search search; /* for single_word */
    struct added_pieces *out;
};

static enum status is_word_character(struct finder *f, size_t at, bool *is_word, struct error *err)
{
    size_t length, start, end;
    utf8_read(f->text + at, &length);
    struct regex_walk walk = {.regex = f->added->word_character,
                              .search = &f->search,
                              .text = f->text + at,
                              .bytes = length};
    return regex_walk_next(&walk, is_word, &start, &end, err);
}

/* Whether neither neighbour of text[start, end) is a word's character. */
static enum status stands_alone(struct finder *f, size_t start, size_t end, bool *alone,
                                struct error *err)
{
    bool before = false;
    bool behind = false;
    enum status st = STATUS_OK;
    if (start > f->from)
        st = is_word_character(f, step_back(f->text, start), &before, err);
    if (st == STATUS_OK && end < f->to)
        st = is_word_character(f, end, &behind, err);
    *alone = !before && !behind;
    return st;
}

static size_t strip_left(const struct finder *f, size_t start, size_t limit)
{
    size_t length;
    while (start > limit && is_white_space(utf8_read(f->text + step_back(f->text, start), &length)))
        start = step_back(f->text, start);
    return start;
}

static size_t strip_right(const struct finder *f, size_t end)
{
    size_t length;
    while (end < f->to && is_white_space(utf8_read(f->text + end, &length)))
        end += length;
    return end;
}

static enum status find_in_stretch(struct finder *f, struct error *err)
{
    size_t done = f->from; /* pieces cover the stretch up to here */
    size_t at = f->from;
    while (at < f->to) {
        uint32_t index = 0;
        size_t length = trie_match(f->trie, f->text + at, f->to - at, &index);
        if (length == 0) {
            at++;
            continue;
        }
        const struct added_token *token = &f->added->tokens[index];
        size_t start = at;
        size_t end = at + length;
        at = end;
        bool taken = true;
        enum status st = STATUS_OK;
        if (token->single_word)
            st = stands_alone(f, start, end, &taken, err);
        if (st == STATUS_OK && taken) {
            /* White space a neighbour has taken already is not taken twice. */
            start = token->lstrip ? strip_left(f, start, done) : start;
            end = token->rstrip ? strip_right(f, end) : end;
            start = start < done ? done : start;
            st = push_piece(f->out, done, start, -1, err);
            if (st == STATUS_OK)
                st = push_piece(f->out, start, end, token->id, err);
            done = end > done ? end : done;
        }
        if (st != STATUS_OK)
            return st;
    }
    return push_piece(f->out, done, f->to, -1, err);
}

/* The second pass: the other trie over what the first one left. */
static enum status find_in_rest(struct finder *f, const struct added_pieces *first,
                                struct error *err)
{
    enum status st = STATUS_OK;
    for (size_t i = 0; i < first->n && st == STATUS_OK; i++) {
        const struct added_piece *piece = &first->list[i];
        f->from = piece->start;
        f->to = piece->end;
        if (piece->id >= 0)
            st = push_piece(f->out, piece->start, piece->end, piece->id, err);
        else
            st = find_in_stretch(f, err);
    }
    return st;
}

enum status added_tokens_find(const struct added_tokens *added, const char *text, size_t bytes,
                              struct added_pieces *pieces, struct error *err)
{
    pieces->n = 0;
    struct added_pieces first = {0};
    struct finder f = {
        .added = added, .text = text, .to = bytes, .trie = &added->tries[0], .out = &first};
    enum status st = regex_search_init(&f.search, err);
    if (st != STATUS_OK)
        return st;
    st = find_in_stretch(&f, err);
    if (st == STATUS_OK) {
        f.trie = &added->tries[1];
        f.out = pieces;
        st = find_in_rest(&f, &first, err);
    }
    added_pieces_fini(&first);
    regex_search_fini(&f.search);
    return st;
}
