/*
 * devices.h - `mgpt-worker --devices`: what this machine could run stages on, as JSON on stdout.
 *
 * The processor with its code paths, the CUDA devices with their memory, the versions of what
 * drives and links them. What is missing is said in words ("error"). Loads no model and talks to
 * nobody.
 */
#ifndef MGPT_WORKER_DEVICES_H
#define MGPT_WORKER_DEVICES_H

/* argv: what follows --devices. Returns the exit code: 0, 1 the answer cannot be written, 2 wrong
 * use. */
int devices_main(int argc, char **argv);

#endif
