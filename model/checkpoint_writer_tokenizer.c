/*
 * checkpoint_writer_tokenizer.c - a tokenizer.json that has the published names at the published
 * ids.
 *
 * Ids: <s>, <pad>, </s>, <unk>; 8,192 codes in an order of the seed's; <eoss>, <racm3:break>;
 * <reservedNNNNN> at NNNNN + 4; the 256 bytes; then merged words, each an older word and one letter
 * more.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/checkpoint_writer_parts.h"
#include "model/random_weights.h"

enum {
    N_CODES = 8192,
    FIRST_CODE = 4,
    END_OF_PICTURE = FIRST_CODE + N_CODES,
    FIRST_RESERVED = END_OF_PICTURE + 2,
    RESERVED_OFFSET = 4,      /* id minus the number in the name */
    IMAGE = 8711,             /* <image> stands where <reserved08707> would */
    FIRST_BYTE_SMALL = 9220,  /* where the bytes begin in a small vocabulary */
    FIRST_BYTE_LARGE = 16384, /* and in one of the published size */
    LARGE_VOCAB = 32768,
    N_BYTES = 256,
    WORD_BYTES = 16
};

static_assert(FIRST_BYTE_SMALL + N_BYTES == CHECKPOINT_WRITER_VOCAB_MIN,
              "no entry may lie past the vocabulary");

/* By frequency in English, so that the early merges meet something; the first is the space. */
static const char letters[] = " etaoinshrdlcumwfgypbvkjxqz";

/* GPT-2's table from bytes to code points: what prints stands for itself, the rest lies from 256
 * on. */
static int byte_point(int byte)
{
    if (byte < '!')
        return 256 + byte;
    if (byte > '~' && byte < 0xa1)
        return 256 + 33 + (byte - 0x7f);
    return byte == 0xad ? 256 + 67 : byte;
}

static void format_byte(char text[4], int byte)
{
    int point = byte_point(byte);
    if (point < 0x80) {
        text[0] = (char)point;
        text[1] = 0;
        return;
    }
    text[0] = (char)(0xc0 | point >> 6);
    text[1] = (char)(0x80 | (point & 0x3f));
    text[2] = 0;
}

/* A name of only ASCII letters, digits and <>: needs no escapes. */
static void put_added(FILE *file, int id, const char *name)
{
    fprintf(
        file,
        "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,\"special\":true}",
        id ? "," : "", id, name);
}

static void put_entry(FILE *file, int id, const char *name)
{
    fputs(id ? ",\"" : "\"", file);
    for (const char *c = name; *c; c++) {
        if (*c == '"' || *c == '\\')
            fputc('\\', file);
        fputc(*c, file);
    }
    fprintf(file, "\":%d", id);
}

static const char *reserved_name(char text[32], int id)
{
    if (id == IMAGE)
        return "<image>";
    snprintf(text, 32, "<reserved%05d>", id - RESERVED_OFFSET);
    return text;
}

/* Calls put for every special token but the codes, or for all ids below first_byte. */
static void put_specials(FILE *file, int first_byte, void (*put)(FILE *, int, const char *))
{
    static const char *const ends[] = {"<eoss>", "<racm3:break>"};
    char text[32];
    for (int i = 0; i < 2; i++)
        put(file, END_OF_PICTURE + i, ends[i]);
    for (int id = FIRST_RESERVED; id < first_byte; id++)
        put(file, id, reserved_name(text, id));
}

static const char *const firsts[] = {"<s>", "<pad>", "</s>", "<unk>"};

/* IMGIMG, the code's digits as letters, Z. */
static void put_codes(FILE *file, const int *order)
{
    for (int i = 0; i < N_CODES; i++) {
        char digits[8], name[24] = "IMGIMG";
        int n = snprintf(digits, sizeof(digits), "%d", order[i]);
        for (int k = 0; k < n; k++)
            digits[k] = (char)(digits[k] - '0' + 'A');
        snprintf(name, sizeof(name), "IMGIMG%sZ", digits);
        put_entry(file, FIRST_CODE + i, name);
    }
}

static void shuffle(int order[N_CODES], uint64_t seed)
{
    for (int i = 0; i < N_CODES; i++)
        order[i] = i;
    for (int i = N_CODES - 1; i > 0; i--) {
        int other = (int)(random_weights_mix(seed + (uint64_t)i) % (uint64_t)(i + 1));
        int kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

/*
 * Word k is an older word and one letter: words 0..26 are the letters themselves, word 27 + j
 * extends word j / 26 by letter 1 + j % 26. Every word arises once, so no two are equal.
 */
static void format_word(char text[WORD_BYTES], int word)
{
    enum { N_LETTERS = sizeof(letters) - 1, N_ENDINGS = N_LETTERS - 1 };
    char reversed[WORD_BYTES];
    int n = 0, wrote = 0;
    while (word >= N_LETTERS) {
        reversed[n++] = letters[1 + (word - N_LETTERS) % N_ENDINGS];
        word = (word - N_LETTERS) / N_ENDINGS;
    }
    reversed[n++] = letters[word];
    while (n > 0) {
        char character[4];
        format_byte(character, reversed[--n]);
        wrote += snprintf(text + wrote, (size_t)(WORD_BYTES - wrote), "%s", character);
    }
}

enum { N_LETTERS = sizeof(letters) - 1 };

static void put_vocabulary(FILE *file, int vocab, int first_byte, const int *order)
{
    for (int i = 0; i < FIRST_CODE; i++)
        put_entry(file, i, firsts[i]);
    put_codes(file, order);
    put_specials(file, first_byte, put_entry);
    char text[WORD_BYTES];
    int next_id = first_byte;
    for (int stands_for_itself = 1; stands_for_itself >= 0; stands_for_itself--)
        for (int byte = 0; byte < N_BYTES; byte++)
            if ((byte_point(byte) == byte) == stands_for_itself) {
                format_byte(text, byte);
                put_entry(file, next_id++, text);
            }
    for (int id = first_byte + N_BYTES; id < vocab; id++) {
        format_word(text, N_LETTERS + id - first_byte - N_BYTES);
        put_entry(file, id, text);
    }
}

static void put_merges(FILE *file, int n_merges)
{
    for (int j = 0; j < n_merges; j++) {
        char parent[WORD_BYTES];
        format_word(parent, j / (N_LETTERS - 1));
        fprintf(file, "%s\"%s %c\"", j ? "," : "", parent, letters[1 + j % (N_LETTERS - 1)]);
    }
}

static const char pre_tokenizer[] = "{\"type\":\"Sequence\",\"pretokenizers\":["
                                    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"<sentinel:[0-9]+>"
                                    "\"},\"behavior\":\"Isolated\",\"invert\":false},"
                                    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(IMGIMG)((A|B|C|"
                                    "D|E|F|G|H|I){1,4})Z\"},\"behavior\":\"Isolated\","
                                    "\"invert\":false},"
                                    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"([\\\\t\\\\n]|   "
                                    " |  )\"},\"behavior\":\"Isolated\",\"invert\":false},"
                                    "{\"type\":\"Digits\",\"individual_digits\":true},"
                                    "{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"},"
                                    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_"
                                    "offsets\":true,\"use_regex\":true}]}";

static void put_tokenizer(FILE *file, int vocab, const int *order)
{
    int first_byte = vocab >= LARGE_VOCAB ? FIRST_BYTE_LARGE : FIRST_BYTE_SMALL;
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[", file);
    for (int i = 0; i < FIRST_CODE; i++)
        put_added(file, i, firsts[i]);
    put_specials(file, first_byte, put_added);
    fprintf(file,
            "],\"normalizer\":null,\"pre_tokenizer\":%s,\"post_processor\":null,\"decoder\":{"
            "\"type\":\"ByteLevel\","
            "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\"model\":{"
            "\"type\":\"BPE\","
            "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_"
            "suffix\":null,"
            "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\"vocab\":{",
            pre_tokenizer);
    put_vocabulary(file, vocab, first_byte, order);
    fputs("},\"merges\":[", file);
    put_merges(file, vocab - first_byte - N_BYTES);
    fputs("]}}\n", file);
}

enum status checkpoint_writer_tokenizer(const char *folder, int vocab, uint64_t seed,
                                        struct error *err)
{
    int *order = malloc(N_CODES * sizeof(*order));
    char *path = NULL;
    enum status st = STATUS_OK;
    if (!order || asprintf(&path, "%s/tokenizer.json", folder) < 0) {
        free(order);
        return error_set(err, STATUS_NOMEM, "cannot allocate the names of '%s/tokenizer.json'",
                         folder);
    }
    shuffle(order, seed);
    FILE *file = fopen(path, "we");
    if (!file) {
        st = error_set_errno(err, STATUS_IO, errno, "cannot create '%s'", path);
    } else {
        put_tokenizer(file, vocab, order);
        int failed = ferror(file);
        if (fclose(file) != 0 || failed)
            st = error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", path);
    }
    free(path);
    free(order);
    return st;
}
