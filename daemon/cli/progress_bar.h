/*
 * progress_bar.h - how far a picture is, on stderr when that is a terminal; nothing otherwise.
 */
#ifndef MGPT_DAEMON_CLI_PROGRESS_BAR_H
#define MGPT_DAEMON_CLI_PROGRESS_BAR_H

#include <stdbool.h>

struct progress_bar {
    bool shown;   /* stderr is a terminal */
    bool started; /* a line is there to be rewritten */
};

void progress_bar_init(struct progress_bar *bar);

/* eta_s below 0: not known. */
void progress_bar_show(struct progress_bar *bar, const char *what, int done, int total,
                       double eta_s);

/* Clears the line. */
void progress_bar_end(struct progress_bar *bar);

#endif
