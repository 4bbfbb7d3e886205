/*
 * zip_test.c - one good archive, spoilt field by field: each field that lies is named, nothing is
 * unpacked past its size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <zlib.h>

#include "model/test_folder.h"
#include "model/zip.h"

enum { N_BYTES_MAX = 4096, LOCAL = 0, CENTRAL = 1, END = 2 };

/* An archive of two entries: a/first stored, a/second deflated. */
struct archive {
    unsigned char bytes[N_BYTES_MAX];
    size_t n_bytes;
    size_t local[2], central[2], end; /* where the records begin */
};

static const char first_text[] = "first entry";
static char second_text[600]; /* compresses well */

static void put(struct archive *archive, const void *bytes, size_t n_bytes)
{
    assert_true(archive->n_bytes + n_bytes <= N_BYTES_MAX);
    memcpy(archive->bytes + archive->n_bytes, bytes, n_bytes);
    archive->n_bytes += n_bytes;
}

static void set(unsigned char *at, int width, uint64_t value)
{
    for (int i = 0; i < width; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static size_t deflate_text(unsigned char *out, size_t n_max, const char *text, size_t n)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (unsigned char *)(uintptr_t)text;
    stream.avail_in = (uInt)n;
    stream.next_out = out;
    stream.avail_out = (uInt)n_max;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t made = n_max - stream.avail_out;
    deflateEnd(&stream);
    return made;
}

static void put_local(struct archive *archive, int i, const char *name, int method,
                      const void *data, size_t packed, const char *text, size_t n)
{
    unsigned char header[30] = {0};
    archive->local[i] = archive->n_bytes;
    set(header, 4, 0x04034b50);
    set(header + 8, 2, (uint64_t)method);
    set(header + 14, 4, crc32(0, (const unsigned char *)text, (uInt)n));
    set(header + 18, 4, packed);
    set(header + 22, 4, n);
    set(header + 26, 2, strlen(name));
    put(archive, header, sizeof(header));
    put(archive, name, strlen(name));
    put(archive, data, packed);
}

static void put_central(struct archive *archive, int i, const char *name)
{
    unsigned char header[46] = {0};
    archive->central[i] = archive->n_bytes;
    set(header, 4, 0x02014b50);
    memcpy(header + 10, archive->bytes + archive->local[i] + 8, 20); /* method .. name length */
    set(header + 42, 4, archive->local[i]);
    put(archive, header, sizeof(header));
    put(archive, name, strlen(name));
}

static void make_archive(struct archive *archive)
{
    unsigned char packed[700], end[22] = {0};
    memset(archive, 0, sizeof(*archive));
    memset(second_text, 'x', sizeof(second_text));
    size_t n_packed = deflate_text(packed, sizeof(packed), second_text, sizeof(second_text));
    put_local(archive, 0, "a/first", 0, first_text, sizeof(first_text), first_text,
              sizeof(first_text));
    put_local(archive, 1, "a/second", 8, packed, n_packed, second_text, sizeof(second_text));
    size_t directory = archive->n_bytes;
    put_central(archive, 0, "a/first");
    put_central(archive, 1, "a/second");
    archive->end = archive->n_bytes;
    set(end, 4, 0x06054b50);
    set(end + 8, 2, 2);
    set(end + 10, 2, 2);
    set(end + 12, 4, archive->end - directory);
    set(end + 16, 4, directory);
    put(archive, end, sizeof(end));
}

/* Opens, and reads all entries: the status of what failed first. */
static enum status read_all(const void *bytes, size_t n_bytes, struct error *err)
{
    struct zip *zip;
    enum status st = zip_open_memory(&zip, bytes, n_bytes, "dir/x.ckpt", err);
    for (size_t i = 0; st == STATUS_OK && i < zip_count(zip); i++) {
        struct zip_bytes entry;
        st = zip_read(zip, zip_entry_at(zip, i), N_BYTES_MAX, &entry, err);
        zip_bytes_free(&entry);
    }
    zip_close(zip);
    return st;
}

static void good_archive(void **state)
{
    (void)state;
    struct archive archive;
    struct zip *zip;
    struct zip_bytes bytes;
    struct error err = {0};
    make_archive(&archive);
    assert_int_equal(zip_open_memory(&zip, archive.bytes, archive.n_bytes, "x", &err), STATUS_OK);
    assert_int_equal(zip_count(zip), 2);
    assert_null(zip_lookup(zip, "first"));
    assert_int_equal(zip_read(zip, zip_lookup(zip, "a/first"), sizeof(first_text), &bytes, &err),
                     STATUS_OK);
    assert_null(bytes.heap);
    assert_memory_equal(bytes.bytes, first_text, sizeof(first_text));
    assert_int_equal(zip_read(zip, zip_lookup(zip, "a/second"), sizeof(second_text), &bytes, &err),
                     STATUS_OK);
    assert_memory_equal(bytes.bytes, second_text, sizeof(second_text));
    zip_bytes_free(&bytes);
    test_expect_error(
        "limit", zip_read(zip, zip_lookup(zip, "a/second"), sizeof(second_text) - 1, &bytes, &err),
        &err, STATUS_INVALID, (const char *[]){"'a/second'", "600", "at most 599"}, 3);
    zip_close(zip);
}

static const struct {
    int record, index, offset, width;
    uint64_t value;
    enum status status;
    const char *words[3];
} lies[] = {
    {CENTRAL, 0, 8, 2, 1, STATUS_UNSUPPORTED, {"'a/first'", "encrypted"}},
    {CENTRAL, 1, 8, 2, 0x40, STATUS_UNSUPPORTED, {"'a/second'", "encrypted"}},
    {LOCAL, 0, 6, 2, 1, STATUS_INVALID, {"'a/first'", "differs"}},
    {CENTRAL, 0, 10, 2, 12, STATUS_UNSUPPORTED, {"'a/first'", "method 12"}},
    {CENTRAL, 0, 10, 2, 8, STATUS_INVALID, {"'a/first'", "differs"}},
    {LOCAL, 1, 8, 2, 0, STATUS_INVALID, {"'a/second'", "differs"}},
    {CENTRAL, 0, 16, 4, 7, STATUS_INVALID, {"'a/first'", "CRC", "expected 00000007"}},
    {CENTRAL, 1, 16, 4, 7, STATUS_INVALID, {"'a/second'", "CRC"}},
    {CENTRAL, 0, 20, 4, 0xffffffff, STATUS_UNSUPPORTED, {"a/first", "zip64"}},
    {CENTRAL, 0, 24, 4, 0xffffffff, STATUS_UNSUPPORTED, {"a/first", "zip64"}},
    {CENTRAL, 0, 42, 4, 0xffffffff, STATUS_UNSUPPORTED, {"a/first", "zip64"}},
    {CENTRAL, 0, 24, 4, 13, STATUS_INVALID, {"'a/first'", "12 bytes packed", "13 unpacked"}},
    {CENTRAL, 1, 24, 4, 599, STATUS_INVALID, {"'a/second'", "broken"}},
    {CENTRAL, 1, 24, 4, 601, STATUS_INVALID, {"'a/second'", "broken"}},
    {CENTRAL, 1, 24, 4, 200000000, STATUS_INVALID, {"'a/second'", "200000000", "1032"}},
    {CENTRAL,
     1,
     24,
     4,
     300000000,
     STATUS_INVALID,
     {"'a/second'", "300000000", "at most 268435456"}},
    {CENTRAL, 1, 20, 4, 5, STATUS_INVALID, {"'a/second'", "broken"}},
    {CENTRAL, 1, 20, 4, 4000, STATUS_INVALID, {"'a/second'", "reaches into the directory"}},
    {CENTRAL, 0, 42, 4, 1, STATUS_INVALID, {"'a/first'", "no local header"}},
    {CENTRAL, 0, 42, 4, 3000, STATUS_INVALID, {"'a/first'", "no local header at byte 3000"}},
    {CENTRAL, 0, 34, 2, 1, STATUS_UNSUPPORTED, {"'a/first'", "disk 1"}},
    {CENTRAL, 0, 28, 2, 0, STATUS_INVALID, {"a name of 0 bytes"}},
    {CENTRAL, 0, 28, 2, 60000, STATUS_INVALID, {"cut short"}},
    {CENTRAL, 0, 30, 2, 9, STATUS_INVALID, {"does not begin a directory entry"}},
    {CENTRAL, 0, 46, 1, 0, STATUS_INVALID, {"without NUL"}},
    {CENTRAL, 0, 46, 1, 'b', STATUS_INVALID, {"'b/first'", "differs"}},
    {CENTRAL, 0, 0, 4, 0, STATUS_INVALID, {"does not begin a directory entry"}},
    {LOCAL, 0, 26, 2, 3, STATUS_INVALID, {"'a/first'", "differs"}},
    {LOCAL, 0, 28, 2, 60000, STATUS_INVALID, {"'a/first'", "reaches into the directory"}},
    {END, 0, 4, 2, 1, STATUS_UNSUPPORTED, {"disk of several"}},
    {END, 0, 8, 2, 1, STATUS_UNSUPPORTED, {"disk of several"}},
    {END, 0, 8, 4, 0xffffffff, STATUS_UNSUPPORTED, {"zip64"}},
    {END, 0, 8, 4, 0x00030003, STATUS_INVALID, {"cannot hold 3 entries"}},
    {END, 0, 8, 4, 0x00010001, STATUS_INVALID, {"behind its 1 entries"}},
    {END, 0, 8, 4, 0x10001000, STATUS_INVALID, {"cannot hold 4096 entries"}},
    {END, 0, 12, 4, 0xffffffff, STATUS_UNSUPPORTED, {"zip64"}},
    {END, 0, 12, 4, 4000, STATUS_INVALID, {"past the end record"}},
    {END, 0, 16, 4, 0xffffffff, STATUS_UNSUPPORTED, {"zip64"}},
    {END, 0, 16, 4, 0x7fffffff, STATUS_INVALID, {"past the end record"}},
    {END, 0, 20, 2, 1, STATUS_INVALID, {"no zip archive"}},
    {END, 0, 0, 4, 0, STATUS_INVALID, {"no zip archive"}},
};

static void each_field_lies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct archive archive;
        struct error err = {0};
        char what[64];
        make_archive(&archive);
        assert_int_equal(read_all(archive.bytes, archive.n_bytes, &err), STATUS_OK);
        size_t record = lies[i].record == LOCAL     ? archive.local[lies[i].index]
                        : lies[i].record == CENTRAL ? archive.central[lies[i].index]
                                                    : archive.end;
        set(archive.bytes + record + lies[i].offset, lies[i].width, lies[i].value);
        snprintf(what, sizeof(what), "case %zu", i);
        enum status st = read_all(archive.bytes, archive.n_bytes, &err);
        test_expect_error(what, st, &err, lies[i].status, lies[i].words, 3);
        assert_non_null(strstr(err.text, "'dir/x.ckpt'"));
    }
}

/* Both directory entries at one local header: the bomb of overlapping files. */
static void overlap_and_twins(void **state)
{
    (void)state;
    struct archive archive;
    struct error err;
    memset(&archive, 0, sizeof(archive));
    make_archive(&archive);
    struct archive twin = {0};
    unsigned char end[22];
    memcpy(end, archive.bytes + archive.end, sizeof(end));
    put(&twin, archive.bytes, archive.central[0]);
    for (int i = 0; i < 2; i++)
        put(&twin, archive.bytes + archive.central[0], archive.central[1] - archive.central[0]);
    set(end + 12, 4, twin.n_bytes - archive.central[0]);
    put(&twin, end, sizeof(end));
    test_expect_error("overlap", read_all(twin.bytes, twin.n_bytes, &err), &err, STATUS_INVALID,
                      (const char *[]){"'a/first'", "overlap"}, 2);
    /* Two entries apart, one name. */
    struct archive same = {0};
    put_local(&same, 0, "a", 0, "1", 1, "1", 1);
    put_local(&same, 1, "a", 0, "2", 1, "2", 1);
    size_t directory = same.n_bytes;
    put_central(&same, 0, "a");
    put_central(&same, 1, "a");
    set(end + 12, 4, same.n_bytes - directory);
    set(end + 16, 4, directory);
    put(&same, end, sizeof(end));
    test_expect_error("twins", read_all(same.bytes, same.n_bytes, &err), &err, STATUS_INVALID,
                      (const char *[]){"two entries 'a'"}, 1);
}

static void broken_stream(void **state)
{
    (void)state;
    struct archive archive;
    struct error err;
    make_archive(&archive);
    archive.bytes[archive.local[1] + 30 + strlen("a/second")] =
        0x07; /* a block type deflate does not have */
    test_expect_error("stream", read_all(archive.bytes, archive.n_bytes, &err), &err,
                      STATUS_INVALID, (const char *[]){"'a/second'", "broken deflate stream"}, 2);
}

/* Every prefix is refused: the end record is at the end. So is the old format of torch, which is no
 * zip. */
static void truncated(void **state)
{
    (void)state;
    struct archive archive;
    struct error err;
    make_archive(&archive);
    for (size_t n = 0; n < archive.n_bytes; n++) {
        unsigned char *exact = malloc(n + 1);
        memcpy(exact, archive.bytes, n);
        assert_int_equal(read_all(exact, n, &err), STATUS_INVALID);
        free(exact);
    }
    test_expect_error("old torch",
                      read_all("\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 15, &err), &err,
                      STATUS_INVALID, (const char *[]){"no zip archive", "torch before 1.6"}, 2);
}

/* Comments behind the end record are legal. */
static void comment(void **state)
{
    (void)state;
    struct archive archive;
    struct error err;
    make_archive(&archive);
    set(archive.bytes + archive.end + 20, 2, 7);
    put(&archive, "PK\5\6...", 7);
    assert_int_equal(read_all(archive.bytes, archive.n_bytes, &err), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_archive),      cmocka_unit_test(each_field_lies),
        cmocka_unit_test(overlap_and_twins), cmocka_unit_test(broken_stream),
        cmocka_unit_test(truncated),         cmocka_unit_test(comment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
