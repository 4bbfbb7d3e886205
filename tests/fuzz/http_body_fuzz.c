/*
 * http_body_fuzz.c - any bytes as the body of POST /v1/images/generations: what is accepted keeps to its limits, and what is
 * refused says why.
 */
#include <string.h>

#include "base/check.h"
#include "daemon/image_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct mgpt_settings settings;
    struct image_request request;
    struct image_refusal refusal;
    struct error err = {0};
    mgpt_settings_init(&settings);
    if (image_request_parse(&request, bytes, n_bytes, &settings, "7b", &refusal, &err) == STATUS_OK) {
        CHECK(request.prompt_bytes > 0);
        CHECK(request.prompt_bytes <= IMAGE_REQUEST_PROMPT_BYTES_MAX);
        CHECK(request.n >= 1 && request.n <= IMAGE_REQUEST_N_MAX);
        CHECK(request.size.width > 0 && request.size.width % 32 == 0);
        CHECK(request.size.height > 0 && request.size.height % 32 == 0);
        CHECK(request.guidance >= 0 && request.guidance <= IMAGE_REQUEST_GUIDANCE_MAX);
        CHECK(request.temperature >= 0 && request.temperature <= IMAGE_REQUEST_TEMPERATURE_MAX);
        CHECK(request.image_top_k >= 0 && request.image_top_k <= IMAGE_REQUEST_TOP_K_MAX);
        CHECK(request.quality >= 0 && request.quality <= 100);
    } else {
        CHECK(err.text[0] != 0);
        CHECK(refusal.code != NULL);
        CHECK(strlen(refusal.field) < sizeof(refusal.field));
    }
    image_request_fini(&request);
    return 0;
}
