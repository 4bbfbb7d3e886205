/*
 * measure.h - `mgpt-worker --measure`: what this machine can do at best, as JSON on stdout.
 *
 * The limits that every benchmark stands beside: bytes read a second and dense bf16 products a
 * second of the code path, with 1, 2, 4 ... threads. Loads no model and talks to nobody.
 */
#ifndef MGPT_WORKER_MEASURE_H
#define MGPT_WORKER_MEASURE_H

/* argv: what follows --measure. Returns the exit code: 0, 1 the measurement failed, 2 wrong use. */
int measure_main(int argc, char **argv);

#endif
