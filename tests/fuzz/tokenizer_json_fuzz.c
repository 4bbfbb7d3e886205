/*
 * tokenizer_json_fuzz.c - any bytes as tokenizer.json: what is accepted encodes and decodes some
 * texts without harm, and its ids have names.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void use(const struct tokenizer *t, const char *text, enum tokenizer_mode mode)
{
    struct ids ids = {0};
    struct error err;
    if (tokenizer_encode(t, text, strlen(text), mode, &ids, &err) == STATUS_OK) {
        for (size_t i = 0; i < ids.n; i++)
            CHECK(tokenizer_name(t, ids.ids[i]) != NULL);
        char *back;
        size_t n;
        if (tokenizer_decode(t, ids.ids, ids.n, &back, &n, &err) == STATUS_OK) {
            CHECK(back[n] == 0);
            free(back);
        }
    } else {
        CHECK(ids.n == 0);
    }
    ids_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static const char *const texts[] = {"", " ab  aab\n1234 <s>!", "ab\xc3\xa9\xe5\x8c\x97 's b",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"};
    struct tokenizer *t;
    struct error err;
    if (tokenizer_create(&t, bytes, n_bytes, "tokenizer.json", &err) != STATUS_OK) {
        CHECK(t == NULL);
        CHECK(err.text[0]);
        return 0;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        use(t, texts[i], TOKENIZER_PLAIN);
        use(t, texts[i], TOKENIZER_ADDED);
    }
    struct vocabulary *v;
    if (vocabulary_create(&v, t, &err) == STATUS_OK)
        CHECK(v->code_to_id[0] >= 0);
    vocabulary_destroy(v);
    tokenizer_destroy(t);
    return 0;
}
