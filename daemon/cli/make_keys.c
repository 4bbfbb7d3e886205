/*
 * make_keys.c - `mgpt make-keys`: key files for a daemon and for the workers of other machines that
 * it lets in.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/settings.h"
#include "proto/curve.h"

enum { KEY_TEXT_BYTES = 512 };

/* flags: O_EXCL for a new file, O_APPEND for one that is there. */
static enum status write_file(const char *path, int flags, const char *text, struct error *err)
{
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (file < 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot write key file '%s'", path);
    size_t bytes = strlen(text);
    ssize_t n = write(file, text, bytes);
    int reason = n < 0 ? errno : ENOSPC;
    if (close(file) == 0 && n == (ssize_t)bytes)
        return STATUS_OK;
    return error_set_errno(err, STATUS_IO, reason, "cannot write key file '%s'", path);
}

static enum status open_daemon_file(struct curve_keys *keys, struct curve_list *workers,
                                    const char *path, struct error *err)
{
    char text[KEY_TEXT_BYTES];
    enum status st = curve_load_file(keys, workers, path, err);
    if (st != STATUS_NOT_FOUND)
        return st;
    st = curve_generate(keys, err);
    if (st != STATUS_OK)
        return st;
    snprintf(text, sizeof(text),
             "# mgptd --worker-key: its own pair, and each worker that it lets in\n"
             "public %s\nsecret %s\nserver %s\n",
             keys->public_key, keys->secret_key, keys->server_key);
    return write_file(path, O_EXCL, text, err);
}

static enum status add_worker(const struct settings *settings, const struct curve_keys *server,
                              const char *daemon_path, int index, struct error *err)
{
    struct curve_keys keys;
    char path[PATH_MAX], text[KEY_TEXT_BYTES];
    if (snprintf(path, sizeof(path), "%s/worker-%d.key", settings->out, index) >= PATH_MAX)
        return error_set(err, STATUS_INVALID, "--out is too long");
    enum status st = curve_generate(&keys, err);
    if (st != STATUS_OK)
        return st;
    snprintf(text, sizeof(text),
             "# mgpt-worker --key: its own pair, and the public key of its mgptd\n"
             "public %s\nsecret %s\nserver %s\n",
             keys.public_key, keys.secret_key, server->public_key);
    st = write_file(path, O_EXCL, text, err);
    if (st != STATUS_OK)
        return st;
    printf("%s\n", path);
    snprintf(text, sizeof(text), "worker %s\n", keys.public_key);
    return write_file(daemon_path, O_APPEND, text, err);
}

static enum status make_keys(const struct settings *settings, struct error *err)
{
    struct curve_keys server;
    char path[PATH_MAX];
    struct curve_list *workers = calloc(1, sizeof(*workers));
    if (!workers)
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of keys");
    enum status st = STATUS_OK;
    if (mkdir(settings->out, 0700) != 0 && errno != EEXIST)
        st = error_set_errno(err, STATUS_IO, errno, "cannot make folder '%s'", settings->out);
    if (snprintf(path, sizeof(path), "%s/mgptd.key", settings->out) >= PATH_MAX)
        st = error_set(err, STATUS_INVALID, "--out is too long");
    if (st == STATUS_OK)
        st = open_daemon_file(&server, workers, path, err);
    if (st == STATUS_OK && workers->n + settings->n > CURVE_LIST_MAX)
        st = error_set(err, STATUS_INVALID, "'%s' would have more than %d workers", path,
                       CURVE_LIST_MAX);
    if (st == STATUS_OK)
        printf("%s\n", path);
    for (int i = 1; i <= settings->n && st == STATUS_OK; i++)
        st = add_worker(settings, &server, path, workers->n + i, err);
    free(workers);
    return st;
}

int command_make_keys(int argc, char **argv)
{
    static const struct option table[] = {
        {"out", "DIR", OPTION_TEXT, SETTING(out), .required = true,
         .help = "folder of mgptd.key, which stays with mgptd (--worker-key), and of worker-K.key, "
                 "one for each mgpt-worker (--key)"},
        {"workers", "N", OPTION_INT, SETTING(n), .default_value = "1", .min = 1,
         .max = CURVE_LIST_MAX,
         .help = "how many; when mgptd.key is there, so many more (start mgptd again)"},
        {0}};
    static const struct option_set set = {
        .program = "mgpt make-keys",
        .about = "Keys for workers on other machines. To lock one out again, take its line out of "
                 "mgptd.key and start mgptd again.",
        .options = table,
        .example = "mgpt make-keys --out ./keys --workers 3"};
    struct settings settings;
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    if (make_keys(&settings, &err) == STATUS_OK)
        return 0;
    fprintf(stderr, "mgpt: %s\n", err.text);
    return 1;
}
