/*
 * webp_fuzz.c - any bytes as a WebP file: what is accepted lies within the limits, can be cropped
 * and written again.
 */
#include "model/picture_codec.h"
#include "tests/fuzz/picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    return picture_fuzz(bytes, n_bytes, picture_webp_read);
}
