/*
 * main.c - `mgpt`: finds the command and hands it its arguments.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/cli/commands.h"

/* Set by the signal handler alone. */
static volatile sig_atomic_t interrupted;

bool command_goes_on(void *context)
{
    (void)context;
    return !interrupted;
}

static void on_signal(int number)
{
    (void)number;
    if (interrupted)
        _Exit(1); /* asked twice: the kernel ends the workers with us */
    interrupted = 1;
}

struct command {
    const char *group, *name; /* group: NULL or "inspect" */
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {NULL, "generate", command_generate, "pictures from a text, by a daemon or on the spot"},
    {NULL, "bench", command_bench, "a load on a daemon, and what the machine allows"},
    {NULL, "make-checkpoint", command_make_checkpoint, "a checkpoint of random weights"},
    {NULL, "make-keys", command_make_keys, "keys for workers on other machines"},
    {"inspect", "tokenize", command_inspect_tokenize, "text on stdin to token ids"},
    {"inspect", "detokenize", command_inspect_detokenize, "token ids on stdin to text"},
    {"inspect", "prompt", command_inspect_prompt, "a conversation to token ids"},
    {"inspect", "sizes", command_inspect_sizes, "picture sizes of a target"},
    {"inspect", "encode", command_inspect_encode, "a picture to codes and tokens"},
    {"inspect", "decode", command_inspect_decode, "tokens to a picture"},
    {"inspect", "sample", command_inspect_sample, "draws from given logits"},
    {"inspect", "logits", command_inspect_logits, "logits at positions of a list of ids"},
    {"inspect", "generate", command_inspect_generate, "one answer, every token told"},
    {"inspect", "checkpoint", command_inspect_checkpoint,
     "sizes of a checkpoint and its cut into stages"},
    {"inspect", "device", command_inspect_device, "what this machine could run stages on"},
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(const char *group)
{
    printf("usage: mgpt %sCOMMAND [options]\n", group ? "inspect " : "");
    for (int i = 0; i < N_COMMANDS; i++) {
        char name[64];
        if (group && (!commands[i].group || strcmp(commands[i].group, group) != 0))
            continue;
        snprintf(name, sizeof(name), "%s%s%s", commands[i].group && !group ? commands[i].group : "",
                 commands[i].group && !group ? " " : "", commands[i].name);
        printf("  %-20s %s\n", name, commands[i].help);
    }
    printf("  %-20s %s\n", "--version", "the version of this program");
    printf("Each command has --help. Exit codes: 0 done, 1 the work failed, 2 wrong use.\n");
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0 ||
           strcmp(argument, "help") == 0;
}

static int wrong_use(const char *text, const char *subject)
{
    fprintf(stderr, "mgpt: %s '%s' (mgpt --help lists the commands)\n", text, subject);
    return 2;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* MGPT_LOG=debug shows what the engine does; commands are quiet otherwise. */
static void set_log_level(void)
{
    const char *name = getenv("MGPT_LOG");
    int level = name ? log_parse_level(name) : -1;
    log_set_level(level >= 0 ? (enum log_level)level : LOG_WARN);
}

int main(int argc, char **argv)
{
    const char *group = NULL;
    int at = 1;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("mgpt %s\n", MGPT_VERSION);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "inspect") == 0) {
        group = "inspect";
        at = 2;
    }
    if (at >= argc)
        return wrong_use("a command is missing after", argv[at - 1]);
    if (is_help(argv[at])) {
        print_help(group);
        return 0;
    }
    catch_signals();
    set_log_level();
    for (int i = 0; i < N_COMMANDS; i++)
        if ((group != NULL) == (commands[i].group != NULL) &&
            strcmp(commands[i].name, argv[at]) == 0)
            return commands[i].run(argc - at - 1, argv + at + 1);
    return wrong_use("unknown command", argv[at]);
}
