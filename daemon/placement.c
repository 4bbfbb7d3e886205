/*
 * placement.c - ready before not ready, then by backlog, then by the number of requests.
 */
#include "daemon/placement.h"

static bool is_better(const struct placement_load *a, const struct placement_load *b,
                      bool is_measured)
{
    if (a->is_ready != b->is_ready)
        return a->is_ready;
    if (is_measured && a->backlog_ns != b->backlog_ns)
        return a->backlog_ns < b->backlog_ns;
    return a->n_requests < b->n_requests;
}

int placement_choose(const struct placement_load *loads, int n)
{
    bool is_any_ready = false, is_measured = true;
    int best = 0;
    for (int i = 0; i < n; i++)
        is_any_ready |= loads[i].is_ready;
    for (int i = 0; i < n; i++)
        is_measured &= loads[i].is_ready != is_any_ready || loads[i].backlog_ns >= 0;
    for (int i = 1; i < n; i++)
        if (is_better(&loads[i], &loads[best], is_measured))
            best = i;
    return best;
}
