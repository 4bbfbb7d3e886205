/*
 * activation.c - lengths and fields of activation frames, checked before a byte of them is used.
 */
#include "proto/activation.h"

#include <string.h>

size_t activation_bytes(uint32_t n_tokens, uint32_t hidden, enum dtype dtype)
{
    return sizeof(struct activation_header) + (size_t)n_tokens * hidden * dtype_bytes(dtype);
}

static enum status check_failed_frame(const struct activation_header *header, size_t body_bytes,
                                      struct error *err)
{
    if (header->status == STATUS_OK || header->status > STATUS_INTERNAL)
        return error_set(err, STATUS_INVALID, "failed activation frame has status %u",
                         header->status);
    if (header->n_tokens != 0)
        return error_set(err, STATUS_INVALID, "failed activation frame has %u rows, expected none",
                         header->n_tokens);
    if (body_bytes >= ERROR_TEXT_BYTES)
        return error_set(err, STATUS_INVALID,
                         "failed activation frame has %zu bytes of text, limit %d", body_bytes,
                         ERROR_TEXT_BYTES - 1);
    return STATUS_OK;
}

enum status activation_decode(struct activation_header *out, const void **body, size_t *body_bytes,
                              const void *bytes, size_t n_bytes, uint32_t hidden, enum dtype dtype,
                              struct error *err)
{
    if (n_bytes < sizeof(*out))
        return error_set(err, STATUS_INVALID,
                         "activation frame has %zu bytes, its header alone has %zu", n_bytes,
                         sizeof(*out));
    memcpy(out, bytes, sizeof(*out));
    *body = (const char *)bytes + sizeof(*out);
    *body_bytes = n_bytes - sizeof(*out);
    if (out->flags & ~(ACTIVATION_FAILED | ACTIVATION_BESIDE) ||
        out->flags == (ACTIVATION_FAILED | ACTIVATION_BESIDE))
        return error_set(err, STATUS_INVALID, "activation frame has unknown flags %04x",
                         out->flags);
    if (out->dtype != dtype)
        return error_set(err, STATUS_INVALID, "activation frame has dtype %u, expected %d (%s)",
                         out->dtype, (int)dtype, dtype_name(dtype));
    if (out->hidden != hidden)
        return error_set(err, STATUS_INVALID,
                         "activation frame has rows of %u numbers, expected %u", out->hidden,
                         hidden);
    if (out->flags & ACTIVATION_FAILED)
        return check_failed_frame(out, *body_bytes, err);
    if (out->status != STATUS_OK)
        return error_set(err, STATUS_INVALID, "activation frame that did not fail has status %u",
                         out->status);
    if (out->flags & ACTIVATION_BESIDE) {
        if (*body_bytes > ACTIVATION_BESIDE_BYTES_MAX)
            return error_set(err, STATUS_INVALID,
                             "activation frame without rows has %zu bytes, limit %d", *body_bytes,
                             ACTIVATION_BESIDE_BYTES_MAX);
        return STATUS_OK;
    }
    if (n_bytes != activation_bytes(out->n_tokens, hidden, dtype))
        return error_set(err, STATUS_INVALID,
                         "activation frame of %u rows has %zu bytes, expected %zu", out->n_tokens,
                         n_bytes, activation_bytes(out->n_tokens, hidden, dtype));
    return STATUS_OK;
}
