/*
 * placement.h - which pipeline takes a further request.
 *
 * Pure.
 */
#ifndef MGPT_DAEMON_PLACEMENT_H
#define MGPT_DAEMON_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

struct placement_load {
    bool is_ready;      /* all its stages stand */
    int64_t backlog_ns; /* scheduler_backlog_ns(): until its requests are done; -1: not measured */
    int n_requests;     /* placed there and not done */
};

/*
 * Index into loads [n], n >= 1: of the pipelines that are ready (of all, where none is) the one
 * that is done first; the one with the fewest requests as long as one of them has measured nothing,
 * which would otherwise look empty whatever it got. The first of equal ones.
 */
int placement_choose(const struct placement_load *loads, int n);

#endif
