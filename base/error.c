/*
 * error.c - writes error texts; control characters from outside never reach a terminal or a log
 * line.
 */
#include "base/error.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the UTF-8 character at c, 0 when it is none: overlong, a surrogate, past U+10FFFF, or
 * cut. */
static int utf8_bytes(const unsigned char *c)
{
    int n = *c < 0x80                 ? 1
            : *c >= 0xc2 && *c < 0xe0 ? 2
            : *c >= 0xe0 && *c < 0xf0 ? 3
            : *c >= 0xf0 && *c < 0xf5 ? 4
                                      : 0;
    for (int i = 1; i < n; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    if ((*c == 0xe0 && c[1] < 0xa0) || (*c == 0xed && c[1] > 0x9f) || (*c == 0xf0 && c[1] < 0x90) ||
        (*c == 0xf4 && c[1] > 0x8f))
        return 0;
    return n;
}

/*
 * Subjects are quoted from outside bytes; what is not printable ASCII or UTF-8 becomes '?', so that
 * the text can stand in a log line and in JSON.
 */
static void clean(char *text)
{
    unsigned char *c = (unsigned char *)text;
    while (*c) {
        int n = utf8_bytes(c);
        if (n == 0 || *c < 0x20 || *c == 0x7f) {
            *c = '?';
            n = 1;
        }
        c += n;
    }
}

static void mark_cut(char *text, int wanted)
{
    if (wanted >= ERROR_TEXT_BYTES)
        memcpy(text + ERROR_TEXT_BYTES - 4, "...", 4);
}

enum status error_set(struct error *err, enum status code, const char *format, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    err->code = code;
    mark_cut(err->text, wanted);
    clean(err->text);
    return code;
}

enum status error_wrap(struct error *err, enum status code, const char *format, ...)
{
    if (!err)
        return code;
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t used = strlen(text);
    if (wanted < (int)sizeof(text))
        wanted += snprintf(text + used, sizeof(text) - used, ": %s", err->text);
    mark_cut(text, wanted);
    clean(text);
    memcpy(err->text, text, sizeof(text));
    err->code = code;
    return code;
}

enum status error_set_errno(struct error *err, enum status code, int errno_value,
                            const char *format, ...)
{
    if (!err)
        return code;
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    char reason[128];
    snprintf(reason, sizeof(reason), "%s", strerror(errno_value));
    reason[0] = (char)tolower((unsigned char)reason[0]);
    return error_set(err, code, "%s: %s", text, reason);
}
