/*
 * log.h - one event, one line on stderr: time, level, module, fixed words, then key=value with the unit in the key.
 *
 *     log_warn("worker", "micro-batch late stage=%d wait_ms=%d limit_ms=%d", stage, wait_ms, limit_ms);
 *     2026-01-31T09:15:02.417Z warn worker micro-batch late stage=2 wait_ms=250 limit_ms=200
 *
 * No prompt text and no image data. A line is written with one write(2), so lines of several threads and
 * processes do not mix. Threads: any.
 */
#ifndef MGPT_BASE_LOG_H
#define MGPT_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above this level are dropped. Set once in main, before threads start. Default LOG_INFO. */
void log_set_level(enum log_level level);

/* Parses "error", "warn", "info", "debug"; returns -1 for anything else. */
int log_parse_level(const char *name);

void log_line(enum log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(module, ...) log_line(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_line(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_line(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_line(LOG_DEBUG, module, __VA_ARGS__)

#endif
