/*
 * log.c - formats a line in one buffer and writes it at once.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { LOG_LINE_BYTES = 1024 }; /* a longer line is cut */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* The level is set once before threads start and only read afterwards. */
static enum log_level level_max = LOG_INFO;

void log_set_level(enum log_level level)
{
    level_max = level;
}

int log_parse_level(const char *name)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return -1;
}

void log_line(enum log_level level, const char *module, const char *format, ...)
{
    if (level > level_max)
        return;
    char line[LOG_LINE_BYTES];
    char now[CLOCK_TEXT_BYTES];
    clock_format_utc(now);
    int used = snprintf(line, sizeof(line), "%s %s %s ", now, level_names[level], module);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + used, sizeof(line) - (size_t)used, format, args);
    va_end(args);
    size_t length = (size_t)used + (size_t)(more < 0 ? 0 : more);
    if (length > sizeof(line) - 1)
        length = sizeof(line) - 1;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line[i] < 0x20)
            line[i] = ' '; /* one event, one line */
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, length) < 0)
        return; /* nowhere left to say so */
}
