/*
 * error.c - writes error texts; control characters from outside never reach a terminal or a log line.
 */
#include "base/error.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Subjects are quoted from outside bytes; what is not printable ASCII or UTF-8 becomes '?'. */
static void clean(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
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

enum status error_set_errno(struct error *err, enum status code, int errno_value, const char *format,
                            ...)
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
