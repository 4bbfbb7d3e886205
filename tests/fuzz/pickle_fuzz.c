/*
 * pickle_fuzz.c - any bytes as a pickle: parsed, the root and what it holds asked every question.
 */
#include "base/check.h"
#include "model/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void ask(const struct pickle *pickle, pickle_id value)
{
    struct pickle_text text;
    struct pickle_tensor tensor;
    struct error err;
    int64_t number;
    pickle_id found;
    CHECK(pickle_kind_name(pickle_kind(pickle, value)));
    pickle_as_text(pickle, value, &text);
    pickle_as_int(pickle, value, &number);
    pickle_dict_find(pickle, value, "state_dict", &found);
    if (pickle_as_tensor(pickle, value, &tensor, &err) == STATUS_OK)
        CHECK(tensor.rank >= 0 && tensor.rank <= TENSOR_RANK_MAX && tensor.storage_elements >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct pickle *pickle;
    struct error err;
    if (pickle_parse(&pickle, bytes, n_bytes, "data.pkl", &err) != STATUS_OK) {
        CHECK(!pickle);
        return 0;
    }
    pickle_id root = pickle_root(pickle);
    ask(pickle, root);
    for (size_t i = 0; i < pickle_count(pickle, root); i++) {
        pickle_id item = pickle_item(pickle, root, i);
        ask(pickle, item);
        for (size_t k = 0; k < pickle_count(pickle, item); k++)
            ask(pickle, pickle_item(pickle, item, k));
    }
    pickle_destroy(pickle);
    return 0;
}
