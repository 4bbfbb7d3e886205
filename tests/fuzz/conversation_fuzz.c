/*
 * conversation_fuzz.c - any bytes as a conversation's JSON: what is accepted has a place for each
 * picture and becomes ids.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/conversation.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

enum { BOS = 0, END_OF_TURN = 1 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static const char json[] = "{\"model\":{\"vocab\":{\"<s>\":0,\"<end>\":1,\"a\":2,\"<unk>\":3},"
                               "\"merges\":[],\"unk_token\":\"<unk>\"}}";
    static struct tokenizer *t; /* made once; the fuzzer ends with the process */
    struct error err = {0};
    if (!t)
        CHECK(tokenizer_create(&t, json, sizeof(json) - 1, "built in", &err) == STATUS_OK);
    struct conversation *c;
    if (conversation_parse(&c, bytes, n_bytes, "conversation.json", &err) != STATUS_OK) {
        CHECK(c == NULL);
        CHECK(err.text[0]);
        return 0;
    }
    int n = conversation_n_pictures(c);
    CHECK(n >= 0 && n <= CONVERSATION_PICTURES_MAX);
    struct ids pictures[CONVERSATION_PICTURES_MAX] = {0};
    for (int i = 0; i < n; i++)
        CHECK(conversation_picture_file(c, i) != NULL);
    struct vocabulary v = {.n_ids = 4, .bos = BOS, .end_of_turn = END_OF_TURN};
    struct ids ids = {0};
    if (conversation_encode(c, t, &v, pictures, n, &ids, &err) == STATUS_OK) {
        CHECK(ids.n >= 2);
        CHECK(ids.ids[0] == BOS);
        CHECK(ids.ids[ids.n - 1] == END_OF_TURN);
    }
    ids_fini(&ids);
    conversation_destroy(c);
    return 0;
}
