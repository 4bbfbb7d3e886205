/*
 * tokenize_fuzz.c - any bytes as text, through the pre-tokenizer of the published checkpoints: what
 * is UTF-8 comes back as it was, what is not is refused. The first byte chooses whether added
 * tokens are recognised.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/byte_level.h"
#include "model/text_buffer.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void put(struct text_buffer *json, const char *text)
{
    CHECK(text_buffer_append(json, text, strlen(text), NULL) == STATUS_OK);
}

/* All bytes, a few merges, two added tokens. */
static struct tokenizer *make_tokenizer(void)
{
    struct text_buffer json = {0};
    put(&json,
        "{\"added_tokens\":[{\"id\":300,\"content\":\"<s>\"},{\"id\":301,\"content\":\"<s><s>\","
        "\"rstrip\":true,\"lstrip\":true}],\"pre_tokenizer\":{\"type\":\"Sequence\","
        "\"pretokenizers\":["
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"<sentinel:[0-9]+>\"},\"behavior\":"
        "\"Isolated\"},"
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z\"},"
        "\"behavior\":\"Isolated\"},"
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"([\\\\t\\\\n]|    |  "
        ")\"},\"behavior\":\"Isolated\"},"
        "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Punctuation\",\"behavior\":"
        "\"Isolated\"},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]},"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":[\"a b\",\"ab "
        "a\",\"a a\",\"b ab\"],"
        "\"vocab\":{\"ab\":256,\"aba\":257,\"aa\":258,\"bab\":259");
    for (int byte = 0; byte < 256; byte++) {
        char name[UTF8_BYTES_MAX + 1] = {0};
        utf8_write(name, byte_level_character((uint8_t)byte));
        char entry[32];
        bool escaped = name[0] == '"' || name[0] == '\\';
        snprintf(entry, sizeof(entry), ",\"%s%s\":%d", escaped ? "\\" : "", name, byte);
        put(&json, entry);
    }
    put(&json, "}}}");
    struct tokenizer *t;
    struct error err = {0};
    if (tokenizer_create(&t, json.bytes, json.n, "built in", &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    text_buffer_fini(&json);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static struct tokenizer *t; /* made once; the fuzzer ends with the process */
    if (!t)
        t = make_tokenizer();
    if (n_bytes == 0)
        return 0;
    bool added = bytes[0] & 1;
    const char *text = (const char *)bytes + 1;
    size_t n_text = n_bytes - 1;
    struct ids ids = {0};
    struct error err;
    enum status st =
        tokenizer_encode(t, text, n_text, added ? TOKENIZER_ADDED : TOKENIZER_PLAIN, &ids, &err);
    CHECK((st == STATUS_OK) == (utf8_find_invalid(text, n_text) == n_text));
    if (st == STATUS_OK) {
        char *back;
        size_t n;
        CHECK(tokenizer_decode(t, ids.ids, ids.n, &back, &n, &err) == STATUS_OK);
        if (!added) { /* an added token takes the spaces around it */
            CHECK(n == n_text);
            CHECK(memcmp(back, text, n) == 0);
        }
        free(back);
    }
    ids_fini(&ids);
    return 0;
}
