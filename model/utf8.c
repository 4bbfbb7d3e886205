/*
 * utf8.c - UTF-8 as RFC 3629 has it.
 */
#include "model/utf8.h"

/* The number of bytes a lead byte promises, 0 for none; the second byte must lie in [*low, *high]
 * (RFC 3629, section 4). */
static size_t promise(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    if (lead == 0xe0)
        *low = 0xa0;
    if (lead == 0xed)
        *high = 0x9f;
    if (lead == 0xf0)
        *low = 0x90;
    if (lead == 0xf4)
        *high = 0x8f;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

size_t utf8_length(const char *text, size_t bytes, size_t *bad_bytes)
{
    const uint8_t *at = (const uint8_t *)text;
    uint8_t low, high;
    size_t length = bytes ? promise(at[0], &low, &high) : 0;
    for (size_t i = 1; i < length; i++) {
        if (i < bytes && at[i] >= low && at[i] <= high) {
            low = 0x80;
            high = 0xbf;
            continue;
        }
        if (bad_bytes)
            *bad_bytes = i;
        return 0;
    }
    if (length == 0 && bad_bytes)
        *bad_bytes = 1;
    return length;
}

size_t utf8_find_invalid(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        size_t length = utf8_length(text + at, bytes - at, NULL);
        if (length == 0)
            return at;
        at += length;
    }
    return bytes;
}

uint32_t utf8_read(const char *text, size_t *length)
{
    const uint8_t *at = (const uint8_t *)text;
    if (at[0] < 0x80) {
        *length = 1;
        return at[0];
    }
    if (at[0] < 0xe0) {
        *length = 2;
        return (uint32_t)(at[0] & 0x1f) << 6 | (at[1] & 0x3f);
    }
    if (at[0] < 0xf0) {
        *length = 3;
        return (uint32_t)(at[0] & 0x0f) << 12 | (uint32_t)(at[1] & 0x3f) << 6 | (at[2] & 0x3f);
    }
    *length = 4;
    return (uint32_t)(at[0] & 0x07) << 18 | (uint32_t)(at[1] & 0x3f) << 12 |
           (uint32_t)(at[2] & 0x3f) << 6 | (at[3] & 0x3f);
}

size_t utf8_write(char text[UTF8_BYTES_MAX], uint32_t c)
{
    if (c < 0x80) {
        text[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        text[0] = (char)(0xc0 | c >> 6);
        text[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        text[0] = (char)(0xe0 | c >> 12);
        text[1] = (char)(0x80 | (c >> 6 & 0x3f));
        text[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    text[0] = (char)(0xf0 | c >> 18);
    text[1] = (char)(0x80 | (c >> 12 & 0x3f));
    text[2] = (char)(0x80 | (c >> 6 & 0x3f));
    text[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
