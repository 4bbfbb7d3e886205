/*
 * clock.h - the time, for those who may ask (scheduler/ may not: there, time is an argument).
 */
#ifndef MGPT_BASE_CLOCK_H
#define MGPT_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic time since an arbitrary start. */
int64_t clock_monotonic_ns(void);
int64_t clock_monotonic_ms(void);

/* CPU time of the calling process, all threads. */
int64_t clock_process_cpu_ns(void);

/* Unix time in seconds. */
int64_t clock_unix_s(void);

enum { CLOCK_TEXT_BYTES = 32 };

/* Now as "2026-01-31T09:15:02.417Z" in the caller's storage. */
void clock_format_utc(char text[CLOCK_TEXT_BYTES]);

#endif
