/*
 * byte_level.c - GPT-2's table of bytes, worked out.
 */
#include "model/byte_level.h"

#include <stdbool.h>

/* The bytes that do not stand for themselves lie in three runs: 0x00-0x20, 0x7f-0xa0, 0xad. */
enum { RUN1_END = 0x21, RUN2 = 0x7f, RUN2_END = 0xa1, RUN3 = 0xad, SHIFTED = 0x100 };

uint32_t byte_level_character(uint8_t byte)
{
    if (byte < RUN1_END)
        return SHIFTED + byte;
    if (byte >= RUN2 && byte < RUN2_END)
        return (uint32_t)(SHIFTED + RUN1_END + byte - RUN2);
    if (byte == RUN3)
        return SHIFTED + RUN1_END + RUN2_END - RUN2;
    return byte;
}

int byte_level_byte(uint32_t c)
{
    if (c < SHIFTED) {
        bool itself = c >= RUN1_END && c != RUN3 && (c < RUN2 || c >= RUN2_END);
        return itself ? (int)c : -1;
    }
    uint32_t shifted = c - SHIFTED;
    if (shifted < RUN1_END)
        return (int)shifted;
    shifted -= RUN1_END;
    if (shifted < RUN2_END - RUN2)
        return (int)(RUN2 + shifted);
    return c == BYTE_LEVEL_CHARACTERS_END - 1 ? RUN3 : -1;
}
