/*
 * progress_bar.c - one line, rewritten.
 */
#include "daemon/cli/progress_bar.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR_CHARS = 32 };

void progress_bar_init(struct progress_bar *bar)
{
    bar->shown = isatty(STDERR_FILENO) == 1;
    bar->started = false;
}

void progress_bar_show(struct progress_bar *bar, const char *what, int done, int total,
                       double eta_s)
{
    char marks[BAR_CHARS + 1];
    if (!bar->shown || total <= 0)
        return;
    int n = done >= total ? BAR_CHARS : (int)((long)done * BAR_CHARS / total);
    for (int i = 0; i < BAR_CHARS; i++)
        marks[i] = i < n ? '#' : '.';
    marks[BAR_CHARS] = 0;
    fprintf(stderr, "\r\033[K%s [%s] %d/%d", what, marks, done, total);
    if (eta_s >= 0)
        fprintf(stderr, " %.0f s left", eta_s);
    fflush(stderr);
    bar->started = true;
}

void progress_bar_end(struct progress_bar *bar)
{
    if (!bar->started)
        return;
    fprintf(stderr, "\r\033[K");
    fflush(stderr);
    bar->started = false;
}
