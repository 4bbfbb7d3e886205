/*
 * pickle.c - the stack machine: one pass over the operations, each checked against stack and
 * limits.
 *
 * Operations: Python's pickletools. What an operation would import or call becomes an inert value,
 * but for the handful of torch's names that describe tensors.
 */
#include "model/pickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/pickle_machine.h"

enum { PROTOCOL_MAX = 5 };

/* A decimal number of a line; *fits is false when it is none of 64 bits. */
static void parse_decimal(struct pickle_text line, int64_t *out, bool *fits)
{
    char digits[24], *stop;
    *fits = line.n_bytes > 0 && line.n_bytes < sizeof(digits);
    *out = 0;
    if (!*fits)
        return;
    memcpy(digits, line.bytes, line.n_bytes);
    digits[line.n_bytes] = 0;
    errno = 0;
    *out = strtoll(digits, &stop, 10);
    *fits = errno == 0 && stop != digits && (*stop == 0 || (stop[0] == 'L' && stop[1] == 0));
}

static enum status line_int(struct pickle_machine *m)
{
    struct pickle_text line = {0};
    enum status st = pickle_machine_take_line(m, &line);
    if (st != STATUS_OK)
        return st;
    if (m->op == 'I' && line.n_bytes == 2 && line.bytes[0] == '0' && (line.bytes[1] | 1) == '1')
        return pickle_machine_push_int(m, PICKLE_BOOL, line.bytes[1] == '1');
    int64_t number;
    bool fits;
    parse_decimal(line, &number, &fits);
    return fits ? pickle_machine_push_int(m, PICKLE_INT, number)
                : pickle_machine_push_kind(m, PICKLE_INERT);
}

static enum status line_memo(struct pickle_machine *m)
{
    struct pickle_text line = {0};
    int64_t index;
    bool fits;
    enum status st = pickle_machine_take_line(m, &line);
    if (st != STATUS_OK)
        return st;
    parse_decimal(line, &index, &fits);
    if (!fits || index < 0)
        return pickle_machine_fail(m, "the memo index is no number");
    return m->op == 'p' ? pickle_machine_memo_put(m, (uint64_t)index)
                        : pickle_machine_memo_get(m, (uint64_t)index);
}

/* Text of protocol 0. Escapes are not undone: such text is inert, and no name that is looked for
 * has any. */
static enum status line_text(struct pickle_machine *m)
{
    struct pickle_text line = {0};
    enum status st = pickle_machine_take_line(m, &line);
    if (st != STATUS_OK)
        return st;
    if (m->op == 'S') {
        if (line.n_bytes < 2 || (line.bytes[0] != '\'' && line.bytes[0] != '"') ||
            line.bytes[line.n_bytes - 1] != line.bytes[0])
            return pickle_machine_fail(m, "a string has no quotes");
        line.bytes++;
        line.n_bytes -= 2;
    }
    if (memchr(line.bytes, '\\', line.n_bytes))
        return pickle_machine_push_kind(m, PICKLE_INERT);
    return pickle_machine_push_value(m, (struct pickle_value){.kind = PICKLE_TEXT, .text = line});
}

static enum status sized_text(struct pickle_machine *m, int length_bytes)
{
    struct pickle_text text = {0};
    enum status st = pickle_machine_take_bytes(m, length_bytes, &text);
    return st == STATUS_OK ? pickle_machine_push_value(
                                 m, (struct pickle_value){.kind = PICKLE_TEXT, .text = text})
                           : st;
}

static enum status sized_inert(struct pickle_machine *m, int length_bytes)
{
    struct pickle_text text = {0};
    enum status st = pickle_machine_take_bytes(m, length_bytes, &text);
    return st == STATUS_OK ? pickle_machine_push_kind(m, PICKLE_INERT) : st;
}

static enum status fixed_int(struct pickle_machine *m, int n_bytes, bool is_signed)
{
    uint64_t number = 0;
    enum status st = pickle_machine_take_number(m, n_bytes, &number);
    if (st != STATUS_OK)
        return st;
    return pickle_machine_push_int(
        m, PICKLE_INT, is_signed ? (int64_t)(int32_t)(uint32_t)number : (int64_t)number);
}

/* Two's complement of any length. */
static enum status long_int(struct pickle_machine *m, int length_bytes)
{
    struct pickle_text text = {0};
    enum status st = pickle_machine_take_bytes(m, length_bytes, &text);
    if (st != STATUS_OK)
        return st;
    if (text.n_bytes > 8)
        return pickle_machine_push_kind(m, PICKLE_INERT);
    uint64_t number = 0;
    for (size_t i = 0; i < text.n_bytes; i++)
        number |= (uint64_t)(unsigned char)text.bytes[i] << (8 * i);
    if (text.n_bytes > 0 && text.n_bytes < 8 &&
        ((unsigned char)text.bytes[text.n_bytes - 1] & 0x80))
        number |= UINT64_MAX << (8 * text.n_bytes);
    return pickle_machine_push_int(m, PICKLE_INT, (int64_t)number);
}

static enum status skip_number(struct pickle_machine *m, int n_bytes)
{
    uint64_t ignored;
    return pickle_machine_take_number(m, n_bytes, &ignored);
}

static enum status protocol(struct pickle_machine *m)
{
    uint64_t version = 0;
    enum status st = pickle_machine_take_number(m, 1, &version);
    return st == STATUS_OK && version > PROTOCOL_MAX
               ? pickle_machine_fail(m, "a protocol that is unknown, expected at most 5")
               : st;
}

static enum status push_global(struct pickle_machine *m, struct pickle_text module,
                               struct pickle_text name)
{
    struct pickle_value value = {.kind = PICKLE_GLOBAL};
    value.global.module = module.bytes;
    value.global.module_bytes = (uint32_t)module.n_bytes;
    value.global.name = name.bytes;
    value.global.name_bytes = (uint32_t)name.n_bytes;
    return pickle_machine_push_value(m, value);
}

static enum status global(struct pickle_machine *m)
{
    struct pickle_text module, name;
    enum status st = pickle_machine_take_line(m, &module);
    if (st == STATUS_OK)
        st = pickle_machine_take_line(m, &name);
    return st == STATUS_OK ? push_global(m, module, name) : st;
}

static enum status stack_global(struct pickle_machine *m)
{
    enum status st = pickle_machine_need(m, 2);
    if (st != STATUS_OK)
        return st;
    struct pickle_text module, name;
    pickle_id second = pickle_machine_pop(m), first = pickle_machine_pop(m);
    if (!pickle_as_text(m->pickle, first, &module) || !pickle_as_text(m->pickle, second, &name))
        return pickle_machine_push_kind(m, PICKLE_INERT);
    return push_global(m, module, name);
}

/* An OrderedDict of a list of pairs, as Python 2 wrote it: the pairs become its items. */
static enum status ordered_dict(struct pickle_machine *m, pickle_id args)
{
    struct pickle *p = m->pickle;
    enum status st = pickle_machine_push_container(m, PICKLE_DICT);
    if (st != STATUS_OK || pickle_count(p, args) == 0)
        return st;
    pickle_id dict = pickle_machine_top(m), list = pickle_item(p, args, 0);
    struct pickle_items *items = &p->containers[p->values[dict].container];
    size_t n = p->values[list].kind == PICKLE_LIST ? pickle_count(p, list) : 0;
    /* Each pair was put into the list by an operation of its own, but the same list can be given
     * many times. */
    if (n > PICKLE_OPS_MAX - m->n_ops)
        return pickle_machine_fail(m, "there are too many operations, expected at most 2097152");
    m->n_ops += (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        pickle_id pair = pickle_item(p, list, i);
        for (size_t k = 0; k < 2 && pickle_count(p, pair) == 2; k++) {
            if (!pickle_machine_grow((void **)&items->ids, items->n, &items->capacity,
                                     sizeof(items->ids[0])))
                return pickle_machine_no_memory(m);
            items->ids[items->n++] = pickle_item(p, pair, k);
        }
    }
    return STATUS_OK;
}

/* A call of `callable` with the tuple `args`: torch's own few are understood, nothing is called. */
static enum status reduce(struct pickle_machine *m, pickle_id callable, pickle_id args)
{
    const struct pickle *p = m->pickle;
    if (p->values[args].kind != PICKLE_TUPLE)
        return pickle_machine_push_kind(m, PICKLE_INERT);
    if (pickle_is_global(p, callable, "torch._utils", "_rebuild_tensor_v2") ||
        pickle_is_global(p, callable, "torch._utils", "_rebuild_tensor"))
        return pickle_machine_push_value(
            m, (struct pickle_value){.kind = PICKLE_TENSOR, .args = args});
    if ((pickle_is_global(p, callable, "torch._utils", "_rebuild_parameter") ||
         pickle_is_global(p, callable, "torch._utils", "_rebuild_parameter_with_state")) &&
        pickle_count(p, args) > 0)
        return pickle_machine_push(m, pickle_item(p, args, 0));
    if (pickle_is_global(p, callable, "collections", "OrderedDict"))
        return ordered_dict(m, args);
    return pickle_machine_push_kind(m, PICKLE_INERT);
}

static enum status reduce_popped(struct pickle_machine *m, bool has_keywords)
{
    enum status st = pickle_machine_need(m, has_keywords ? 3 : 2);
    if (st != STATUS_OK)
        return st;
    if (has_keywords)
        pickle_machine_pop(m);
    pickle_id args = pickle_machine_pop(m), callable = pickle_machine_pop(m);
    return reduce(m, callable, args);
}

/* INST, OBJ, FROZENSET: all above the mark becomes one inert value. */
static enum status marked_inert(struct pickle_machine *m)
{
    uint32_t n = 0;
    enum status st = pickle_machine_pop_mark(m, &n);
    if (st != STATUS_OK)
        return st;
    m->n_stack -= n;
    return pickle_machine_push_kind(m, PICKLE_INERT);
}

/* The state of an object (OrderedDict of torch has _metadata): dropped. */
static enum status build(struct pickle_machine *m)
{
    enum status st = pickle_machine_need(m, 2);
    if (st == STATUS_OK)
        pickle_machine_pop(m);
    return st;
}

/* torch's persistent ids are tuples ("storage", type, key, location, elements). */
static enum status persistent(struct pickle_machine *m)
{
    enum status st = pickle_machine_need(m, 1);
    if (st != STATUS_OK)
        return st;
    pickle_id id = pickle_machine_pop(m);
    struct pickle_text tag;
    if (m->pickle->values[id].kind == PICKLE_TUPLE && pickle_count(m->pickle, id) >= 5 &&
        pickle_as_text(m->pickle, pickle_item(m->pickle, id, 0), &tag) && tag.n_bytes == 7 &&
        memcmp(tag.bytes, "storage", 7) == 0)
        return pickle_machine_push_value(m,
                                         (struct pickle_value){.kind = PICKLE_STORAGE, .args = id});
    return pickle_machine_push_kind(m, PICKLE_INERT);
}

static enum status persistent_line(struct pickle_machine *m)
{
    struct pickle_text line = {0};
    enum status st = pickle_machine_take_line(m, &line);
    return st == STATUS_OK ? pickle_machine_push_kind(m, PICKLE_INERT) : st;
}

static enum status instance(struct pickle_machine *m)
{
    struct pickle_text line = {0};
    enum status st = pickle_machine_take_line(m, &line);
    if (st == STATUS_OK)
        st = pickle_machine_take_line(m, &line);
    return st == STATUS_OK ? marked_inert(m) : st;
}

static enum status float_line(struct pickle_machine *m)
{
    return persistent_line(m);
}

static enum status tuple_of(struct pickle_machine *m, uint32_t n)
{
    enum status st = pickle_machine_need(m, n);
    return st == STATUS_OK ? pickle_machine_push_tuple(m, n) : st;
}

static enum status marked(struct pickle_machine *m)
{
    uint32_t n = 0;
    enum status st = pickle_machine_pop_mark(m, &n);
    if (st != STATUS_OK)
        return st;
    switch (m->op) {
    case 't': /* TUPLE */
        return pickle_machine_push_tuple(m, n);
    case 'e':  /* APPENDS */
    case 0x90: /* ADDITEMS */
        return pickle_machine_append_items(m, n, PICKLE_LIST);
    case 'u': /* SETITEMS */
        return pickle_machine_append_items(m, n, PICKLE_DICT);
    case '1': /* POP_MARK */
        m->n_stack -= n;
        return STATUS_OK;
    case 'l': /* LIST */
    case 'd': /* DICT */
        break;
    }
    /* The container goes below its items. */
    enum pickle_kind kind = m->op == 'l' ? PICKLE_LIST : PICKLE_DICT;
    st = pickle_machine_push_container(m, kind);
    if (st != STATUS_OK)
        return st;
    pickle_id container = pickle_machine_top(m);
    memmove(&m->stack[m->n_stack - n], &m->stack[m->n_stack - n - 1], n * sizeof(m->stack[0]));
    m->stack[m->n_stack - n - 1] = container;
    return pickle_machine_append_items(m, n, kind);
}

static enum status pop_one(struct pickle_machine *m)
{
    /* Python lets POP take a mark away when nothing stands above it. */
    if (pickle_machine_available(m) == 0 && m->n_marks > 0) {
        m->n_marks--;
        return STATUS_OK;
    }
    enum status st = pickle_machine_need(m, 1);
    if (st == STATUS_OK)
        pickle_machine_pop(m);
    return st;
}

static enum status duplicate(struct pickle_machine *m)
{
    enum status st = pickle_machine_need(m, 1);
    return st == STATUS_OK ? pickle_machine_push(m, pickle_machine_top(m)) : st;
}

static enum status memo_number(struct pickle_machine *m, int n_bytes, bool is_put)
{
    uint64_t index = 0;
    enum status st = pickle_machine_take_number(m, n_bytes, &index);
    if (st != STATUS_OK)
        return st;
    return is_put ? pickle_machine_memo_put(m, index) : pickle_machine_memo_get(m, index);
}

static enum status skip_then_inert(struct pickle_machine *m, int n_bytes)
{
    enum status st = skip_number(m, n_bytes);
    return st == STATUS_OK ? pickle_machine_push_kind(m, PICKLE_INERT) : st;
}

static enum status bytes_or_number(struct pickle_machine *m)
{
    switch (m->op) {
    case 'X': /* BINUNICODE */
    case 'T': /* BINSTRING */
        return sized_text(m, 4);
    case 0x8c: /* SHORT_BINUNICODE */
    case 'U':  /* SHORT_BINSTRING */
        return sized_text(m, 1);
    case 0x8d: /* BINUNICODE8 */
        return sized_text(m, 8);
    case 'B': /* BINBYTES */
        return sized_inert(m, 4);
    case 'C': /* SHORT_BINBYTES */
        return sized_inert(m, 1);
    case 0x8e: /* BINBYTES8 */
    case 0x96: /* BYTEARRAY8 */
        return sized_inert(m, 8);
    case 'K': /* BININT1 */
        return fixed_int(m, 1, false);
    case 'M': /* BININT2 */
        return fixed_int(m, 2, false);
    case 'J': /* BININT */
        return fixed_int(m, 4, true);
    case 0x8a: /* LONG1 */
        return long_int(m, 1);
    case 0x8b: /* LONG4 */
        return long_int(m, 4);
    case 'I': /* INT */
    case 'L': /* LONG */
        return line_int(m);
    case 'S': /* STRING */
    case 'V': /* UNICODE */
        return line_text(m);
    case 'F': /* FLOAT */
        return float_line(m);
    case 'G': /* BINFLOAT */
        return skip_then_inert(m, 8);
    case 0x82: /* EXT1 */
        return skip_then_inert(m, 1);
    case 0x83: /* EXT2 */
        return skip_then_inert(m, 2);
    case 0x84: /* EXT4 */
        return skip_then_inert(m, 4);
    }
    return pickle_machine_fail(m, "no such operation");
}

static enum status object(struct pickle_machine *m)
{
    switch (m->op) {
    case 'c': /* GLOBAL */
        return global(m);
    case 0x93: /* STACK_GLOBAL */
        return stack_global(m);
    case 'R':  /* REDUCE */
    case 0x81: /* NEWOBJ */
        return reduce_popped(m, false);
    case 0x92: /* NEWOBJ_EX */
        return reduce_popped(m, true);
    case 'b': /* BUILD */
        return build(m);
    case 'i': /* INST */
        return instance(m);
    case 'o':  /* OBJ */
    case 0x91: /* FROZENSET */
        return marked_inert(m);
    case 'P': /* PERSID */
        return persistent_line(m);
    case 'Q': /* BINPERSID */
        return persistent(m);
    case 0x97: /* NEXT_BUFFER */
        return pickle_machine_push_kind(m, PICKLE_INERT);
    case 0x98: /* READONLY_BUFFER */
        return STATUS_OK;
    }
    return bytes_or_number(m);
}

static enum status step(struct pickle_machine *m)
{
    switch (m->op) {
    case 0x80: /* PROTO */
        return protocol(m);
    case 0x95: /* FRAME */
        return skip_number(m, 8);
    case '(':
        return pickle_machine_push_mark(m);
    case 't':
    case 'e':
    case 'u':
    case '1':
    case 'l':
    case 'd':
    case 0x90:
        return marked(m);
    case 'a': /* APPEND */
        return pickle_machine_append_items(m, 1, PICKLE_LIST);
    case 's': /* SETITEM */
        return pickle_machine_append_items(m, 2, PICKLE_DICT);
    case 'N':
        return pickle_machine_push_kind(m, PICKLE_NONE);
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        return pickle_machine_push_int(m, PICKLE_BOOL, m->op == 0x88);
    case ']':
        return pickle_machine_push_container(m, PICKLE_LIST);
    case '}':
        return pickle_machine_push_container(m, PICKLE_DICT);
    case 0x8f: /* EMPTY_SET */
        return pickle_machine_push_kind(m, PICKLE_INERT);
    case ')':
        return pickle_machine_push_tuple(m, 0);
    case 0x85: /* TUPLE1 */
    case 0x86:
    case 0x87: /* TUPLE3 */
        return tuple_of(m, m->op - 0x84u);
    case '0':
        return pop_one(m);
    case '2':
        return duplicate(m);
    case 'q': /* BINPUT */
        return memo_number(m, 1, true);
    case 'r': /* LONG_BINPUT */
        return memo_number(m, 4, true);
    case 'h': /* BINGET */
        return memo_number(m, 1, false);
    case 'j': /* LONG_BINGET */
        return memo_number(m, 4, false);
    case 'p': /* PUT */
    case 'g': /* GET */
        return line_memo(m);
    case 0x94: /* MEMOIZE */
        return pickle_machine_memo_put(m, m->n_memo);
    }
    return object(m);
}

static enum status run(struct pickle_machine *m)
{
    while (m->at < m->end) {
        m->op = *m->at++;
        if (m->op == '.') {
            enum status st = pickle_machine_need(m, 1);
            if (st == STATUS_OK)
                m->pickle->root = pickle_machine_pop(m);
            if (st == STATUS_OK && m->at < m->end)
                st = error_set(m->err, STATUS_INVALID,
                               "'%s' has %zu bytes behind its stop, expected none", m->pickle->name,
                               (size_t)(m->end - m->at));
            return st;
        }
        if (m->n_ops++ >= PICKLE_OPS_MAX)
            return pickle_machine_fail(m,
                                       "there are too many operations, expected at most 2097152");
        enum status st = step(m);
        if (st != STATUS_OK)
            return st;
    }
    return pickle_machine_fail(m, "the pickle ends without its stop");
}

enum status pickle_parse(struct pickle **out, const void *bytes, size_t n_bytes, const char *name,
                         struct error *err)
{
    *out = NULL;
    if (n_bytes > PICKLE_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         n_bytes, PICKLE_BYTES_MAX);
    struct pickle_machine *m = calloc(1, sizeof(*m));
    struct pickle *pickle = calloc(1, sizeof(*pickle));
    enum status st = STATUS_OK;
    if (m)
        m->stack = calloc(PICKLE_STACK_MAX, sizeof(m->stack[0]));
    if (!m || !pickle || !m->stack)
        st = error_set(err, STATUS_NOMEM, "'%s': cannot allocate the pickle reader", name);
    if (st == STATUS_OK) {
        pickle->name = name;
        m->pickle = pickle;
        m->start = m->at = bytes;
        m->end = m->start + n_bytes;
        m->err = err;
        st = run(m);
    }
    if (m) {
        free(m->stack);
        free(m->memo);
        free(m);
    }
    if (st != STATUS_OK) {
        pickle_destroy(pickle);
        return st;
    }
    *out = pickle;
    return STATUS_OK;
}
