/*
 * commands.h - the commands of `mgpt`. Each takes its arguments (without its name) and returns the
 * exit code: 0 done, 1 the work failed (one line "mgpt: ..." on stderr), 2 wrong use.
 */
#ifndef MGPT_DAEMON_CLI_COMMANDS_H
#define MGPT_DAEMON_CLI_COMMANDS_H

#include <stdbool.h>

int command_inspect_tokenize(int argc, char **argv);
int command_inspect_detokenize(int argc, char **argv);
int command_inspect_prompt(int argc, char **argv);
int command_inspect_sizes(int argc, char **argv);
int command_inspect_encode(int argc, char **argv);
int command_inspect_decode(int argc, char **argv);
int command_inspect_sample(int argc, char **argv);
int command_inspect_logits(int argc, char **argv);
int command_inspect_generate(int argc, char **argv);
int command_inspect_checkpoint(int argc, char **argv);
int command_inspect_device(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_make_checkpoint(int argc, char **argv);
int command_make_keys(int argc, char **argv);
int command_bench(int argc, char **argv);

/* main.c: false after SIGINT, SIGTERM or SIGHUP. The argument is not used: it fits
 * engine_client.wants_more. */
bool command_goes_on(void *context);

#endif
