/*
 * test_folder.h - for tests of readers: a folder of its own, files with given bytes, errors that
 * must say certain words.
 *
 * Include after cmocka.h. The folder is removed by test_folder_remove(), files first.
 */
#ifndef MGPT_MODEL_TEST_FOLDER_H
#define MGPT_MODEL_TEST_FOLDER_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

struct test_folder {
    char path[64];
    char joined[320]; /* of the last test_folder_path() */
};

static inline void test_folder_make(struct test_folder *folder)
{
    snprintf(folder->path, sizeof(folder->path), "/tmp/mgpt-test-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
}

static inline int test_folder_unlink(const char *path, const struct stat *info, int type,
                                     struct FTW *place)
{
    (void)info;
    (void)type;
    (void)place;
    return remove(path);
}

static inline void test_folder_remove(struct test_folder *folder)
{
    nftw(folder->path, test_folder_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

static inline const char *test_folder_path(struct test_folder *folder, const char *name)
{
    snprintf(folder->joined, sizeof(folder->joined), "%s/%s", folder->path, name);
    return folder->joined;
}

static inline const char *test_folder_write(struct test_folder *folder, const char *name,
                                            const void *bytes, size_t n_bytes)
{
    FILE *file = fopen(test_folder_path(folder, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
    return folder->joined;
}

static inline const char *test_folder_write_text(struct test_folder *folder, const char *name,
                                                 const char *text)
{
    return test_folder_write(folder, name, text, strlen(text));
}

/* The call failed as it should: this status, and all words (up to the first NULL) in the text. */
static inline void test_expect_error(const char *what, enum status found, const struct error *err,
                                     enum status expected, const char *const *words, size_t n_words)
{
    if (found != expected)
        print_error("%s: status %s, expected %s; text: %s\n", what, status_name(found),
                    status_name(expected), found == STATUS_OK ? "" : err->text);
    assert_int_equal(found, expected);
    for (size_t i = 0; i < n_words && words[i]; i++) {
        if (!strstr(err->text, words[i]))
            print_error("%s: '%s' is not in: %s\n", what, words[i], err->text);
        assert_non_null(strstr(err->text, words[i]));
    }
}

#endif
