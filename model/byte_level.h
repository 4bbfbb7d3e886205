/*
 * byte_level.h - the printable characters that stand for bytes in byte-level BPE (GPT-2).
 *
 * Bytes 0x21-0x7e, 0xa1-0xac and 0xae-0xff stand for themselves as code points; the other 68, in
 * order, are U+0100 and up.
 */
#ifndef MGPT_MODEL_BYTE_LEVEL_H
#define MGPT_MODEL_BYTE_LEVEL_H

#include <stdint.h>

enum { BYTE_LEVEL_CHARACTERS_END = 0x100 + 68 }; /* one past the largest code point */

/* The code point of a byte. */
uint32_t byte_level_character(uint8_t byte);

/* The byte of a code point; -1 when it stands for none. */
int byte_level_byte(uint32_t character);

#endif
