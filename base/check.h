/*
 * check.h - a broken invariant ends the process, in release builds too.
 *
 * Never for bad input, a lost peer or a full queue: those are statuses.
 */
#ifndef MGPT_BASE_CHECK_H
#define MGPT_BASE_CHECK_H

#define CHECK(expression)                                                                          \
    do {                                                                                           \
        if (!(expression))                                                                         \
            check_failed(#expression, __FILE__, __LINE__);                                         \
    } while (0)

_Noreturn void check_failed(const char *expression, const char *file, int line);

#endif
