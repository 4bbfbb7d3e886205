/*
 * remote_places.c - reads the list from left to right.
 */
#include "daemon/remote_places.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct place {
    int pipeline; /* -1: every one */
    int stage;
};

static bool read_number(int *out, const char **text)
{
    char *end;
    if (!isdigit((unsigned char)**text))
        return false;
    long number = strtol(*text, &end, 10);
    *out = number > ENGINE_STAGES_MAX ? ENGINE_STAGES_MAX : (int)number;
    *text = end;
    return true;
}

/* "3" or "1.3". */
static bool read_place(struct place *out, const char **text)
{
    out->pipeline = -1;
    if (!read_number(&out->stage, text))
        return false;
    if (**text != '.')
        return true;
    (*text)++;
    out->pipeline = out->stage;
    return read_number(&out->stage, text);
}

static void mark(struct remote_places *out, const struct place *from, const struct place *to,
                 int n_pipelines)
{
    for (int p = 0; p < n_pipelines; p++)
        for (int k = from->stage; k <= to->stage; k++)
            if ((from->pipeline < 0 || from->pipeline == p) && !out->is_remote[p][k]) {
                out->is_remote[p][k] = true;
                out->n++;
            }
}

enum status remote_places_parse(struct remote_places *out, const char *text, int n_pipelines,
                                int n_stages, struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (!text || !*text)
        return STATUS_OK;
    struct place from = {-1, 0}, to = {-1, n_stages - 1};
    if (strcmp(text, "all") == 0) {
        mark(out, &from, &to, n_pipelines);
        return STATUS_OK;
    }
    for (const char *at = text;; at++) {
        bool is_good = read_place(&from, &at);
        to = from;
        if (is_good && *at == '-') {
            at++;
            is_good = read_place(&to, &at);
        }
        if (!is_good || to.pipeline != from.pipeline || to.stage < from.stage ||
            (*at && *at != ','))
            return error_set(err, STATUS_INVALID,
                             "--remote-stages is '%s', expected all, or stages like 1, 0-2,5 or "
                             "1.0-1.3 (stages 0 to 3 of pipeline 1)",
                             text);
        if (to.stage >= n_stages || from.pipeline >= n_pipelines)
            return error_set(
                err, STATUS_INVALID,
                "--remote-stages is '%s', but there are %d pipelines (from 0 on) of %d "
                "stages (from 0 on)",
                text, n_pipelines, n_stages);
        mark(out, &from, &to, n_pipelines);
        if (!*at)
            return STATUS_OK;
    }
}
