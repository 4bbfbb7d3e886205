/*
 * remote_places.h - which stages are filled by workers of other machines: "1", "0-2,5", "1.0-1.3",
 * "all".
 *
 * Pure. An item is a stage or a run of stages, of every pipeline, or of one whose number and a dot
 * stand before each.
 */
#ifndef MGPT_DAEMON_REMOTE_PLACES_H
#define MGPT_DAEMON_REMOTE_PLACES_H

#include <stdbool.h>

#include "base/error.h"
#include "daemon/engine.h"

struct remote_places {
    bool is_remote[ENGINE_PIPELINES_MAX][ENGINE_STAGES_MAX];
    int n;
};

/* text: NULL or "": none. STATUS_INVALID: no such list, or a stage that there is not. */
enum status remote_places_parse(struct remote_places *out, const char *text, int n_pipelines,
                                int n_stages, struct error *err);

#endif
