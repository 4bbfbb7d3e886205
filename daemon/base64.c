/*
 * base64.c - libsodium knows how; this gives it memory.
 */
#include "daemon/base64.h"

#include <sodium.h>
#include <stdlib.h>

char *base64_encode(const uint8_t *bytes, size_t n_bytes)
{
    size_t n_chars = sodium_base64_ENCODED_LEN(n_bytes, sodium_base64_VARIANT_ORIGINAL);
    char *text = malloc(n_chars);
    return text ? sodium_bin2base64(text, n_chars, bytes, n_bytes, sodium_base64_VARIANT_ORIGINAL)
                : NULL;
}

uint8_t *base64_decode(const char *text, size_t n_chars, size_t *n_bytes)
{
    uint8_t *bytes = malloc(n_chars / 4 * 3 + 4);
    if (bytes && sodium_base642bin(bytes, n_chars / 4 * 3 + 4, text, n_chars, NULL, n_bytes, NULL,
                                   sodium_base64_VARIANT_ORIGINAL) != 0) {
        free(bytes);
        bytes = NULL;
    }
    return bytes;
}
