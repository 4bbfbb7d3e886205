/*
 * pickle_machine.c - arrays that double, a stack that does not.
 */
#include "model/pickle_machine.h"

#include <stdlib.h>
#include <string.h>

#define NOTHING UINT32_MAX /* a memo slot that was never written */

enum status pickle_machine_fail(struct pickle_machine *m, const char *what)
{
    return error_set(m->err, STATUS_INVALID, "'%s': byte %zu, operation 0x%02x: %s",
                     m->pickle->name, (size_t)(m->at - m->start), m->op, what);
}

enum status pickle_machine_no_memory(struct pickle_machine *m)
{
    return error_set(m->err, STATUS_NOMEM, "'%s': cannot allocate the values of the pickle",
                     m->pickle->name);
}

bool pickle_machine_grow(void **array, uint32_t n, uint32_t *capacity, size_t element_bytes)
{
    if (n < *capacity)
        return true;
    uint32_t wanted = *capacity ? *capacity * 2 : 64;
    void *larger = reallocarray(*array, wanted, element_bytes);
    if (!larger)
        return false;
    *array = larger;
    *capacity = wanted;
    return true;
}

enum status pickle_machine_push(struct pickle_machine *m, pickle_id value)
{
    if (m->n_stack == PICKLE_STACK_MAX)
        return pickle_machine_fail(m, "the stack is full");
    m->stack[m->n_stack++] = value;
    return STATUS_OK;
}

enum status pickle_machine_push_value(struct pickle_machine *m, struct pickle_value value)
{
    struct pickle *p = m->pickle;
    if (!pickle_machine_grow((void **)&p->values, p->n_values, &p->values_capacity,
                             sizeof(p->values[0])))
        return pickle_machine_no_memory(m);
    p->values[p->n_values] = value;
    return pickle_machine_push(m, p->n_values++);
}

enum status pickle_machine_push_kind(struct pickle_machine *m, enum pickle_kind kind)
{
    return pickle_machine_push_value(m, (struct pickle_value){.kind = kind});
}

enum status pickle_machine_push_int(struct pickle_machine *m, enum pickle_kind kind, int64_t number)
{
    return pickle_machine_push_value(m, (struct pickle_value){.kind = kind, .number = number});
}

enum status pickle_machine_push_container(struct pickle_machine *m, enum pickle_kind kind)
{
    struct pickle *p = m->pickle;
    if (!pickle_machine_grow((void **)&p->containers, p->n_containers, &p->containers_capacity,
                             sizeof(p->containers[0])))
        return pickle_machine_no_memory(m);
    p->containers[p->n_containers] = (struct pickle_items){0};
    return pickle_machine_push_value(
        m, (struct pickle_value){.kind = kind, .container = p->n_containers++});
}

uint32_t pickle_machine_available(const struct pickle_machine *m)
{
    return m->n_stack - (m->n_marks ? m->marks[m->n_marks - 1] : 0);
}

enum status pickle_machine_need(struct pickle_machine *m, uint32_t n)
{
    return pickle_machine_available(m) < n
               ? pickle_machine_fail(m, "the stack holds too few values")
               : STATUS_OK;
}

pickle_id pickle_machine_pop(struct pickle_machine *m)
{
    return m->stack[--m->n_stack];
}

pickle_id pickle_machine_top(const struct pickle_machine *m)
{
    return m->stack[m->n_stack - 1];
}

enum status pickle_machine_push_tuple(struct pickle_machine *m, uint32_t n)
{
    struct pickle *p = m->pickle;
    uint32_t first = p->n_tuples;
    m->n_stack -= n;
    for (uint32_t i = 0; i < n; i++) {
        if (!pickle_machine_grow((void **)&p->tuples, p->n_tuples, &p->tuples_capacity,
                                 sizeof(p->tuples[0])))
            return pickle_machine_no_memory(m);
        p->tuples[p->n_tuples++] = m->stack[m->n_stack + i];
    }
    return pickle_machine_push_value(
        m, (struct pickle_value){.kind = PICKLE_TUPLE, .tuple = {first, n}});
}

enum status pickle_machine_pop_mark(struct pickle_machine *m, uint32_t *n)
{
    if (m->n_marks == 0)
        return pickle_machine_fail(m, "there is no mark");
    *n = pickle_machine_available(m);
    m->n_marks--;
    return STATUS_OK;
}

enum status pickle_machine_push_mark(struct pickle_machine *m)
{
    if (m->n_marks == PICKLE_DEPTH_MAX)
        return pickle_machine_fail(m, "marks are nested too deeply, expected at most 1000");
    m->marks[m->n_marks++] = m->n_stack;
    return STATUS_OK;
}

enum status pickle_machine_append_items(struct pickle_machine *m, uint32_t n, enum pickle_kind kind)
{
    struct pickle *p = m->pickle;
    uint32_t first = m->n_stack - n;
    if (pickle_machine_available(m) < n + 1)
        return pickle_machine_fail(m, "nothing stands below the items");
    if (kind == PICKLE_DICT && n % 2 != 0)
        return pickle_machine_fail(m, "a key has no value");
    const struct pickle_value *value = &p->values[m->stack[first - 1]];
    m->n_stack = first;
    if (value->kind == PICKLE_INERT)
        return STATUS_OK;
    if (value->kind != kind)
        return pickle_machine_fail(m, "items go into something that holds none");
    struct pickle_items *items = &p->containers[value->container];
    for (uint32_t i = 0; i < n; i++) {
        if (!pickle_machine_grow((void **)&items->ids, items->n, &items->capacity,
                                 sizeof(items->ids[0])))
            return pickle_machine_no_memory(m);
        items->ids[items->n++] = m->stack[first + i];
    }
    return STATUS_OK;
}

enum status pickle_machine_memo_put(struct pickle_machine *m, uint64_t index)
{
    enum status st = pickle_machine_need(m, 1);
    if (st != STATUS_OK)
        return st;
    if (index >= PICKLE_MEMO_MAX)
        return pickle_machine_fail(m, "the memo index is too large, expected below 1048576");
    if (index >= m->memo_capacity) {
        uint32_t wanted = m->memo_capacity ? m->memo_capacity : 1024;
        while (wanted <= index)
            wanted *= 2;
        pickle_id *larger = reallocarray(m->memo, wanted, sizeof(*larger));
        if (!larger)
            return pickle_machine_no_memory(m);
        memset(larger + m->memo_capacity, 0xff, (wanted - m->memo_capacity) * sizeof(*larger));
        m->memo = larger;
        m->memo_capacity = wanted;
    }
    m->n_memo += m->memo[index] == NOTHING;
    m->memo[index] = pickle_machine_top(m);
    return STATUS_OK;
}

enum status pickle_machine_memo_get(struct pickle_machine *m, uint64_t index)
{
    if (index >= m->memo_capacity || m->memo[index] == NOTHING)
        return pickle_machine_fail(m, "the memo holds nothing at this index");
    return pickle_machine_push(m, m->memo[index]);
}

enum status pickle_machine_take_number(struct pickle_machine *m, int n, uint64_t *out)
{
    if (m->end - m->at < n)
        return pickle_machine_fail(m, "the pickle ends inside an operation");
    *out = 0;
    for (int i = 0; i < n; i++)
        *out |= (uint64_t)m->at[i] << (8 * i);
    m->at += n;
    return STATUS_OK;
}

enum status pickle_machine_take_bytes(struct pickle_machine *m, int n, struct pickle_text *out)
{
    uint64_t length = 0;
    enum status st = pickle_machine_take_number(m, n, &length);
    if (st != STATUS_OK)
        return st;
    if (length > (uint64_t)(m->end - m->at))
        return pickle_machine_fail(m, "a length reaches past the end");
    *out = (struct pickle_text){(const char *)m->at, (size_t)length};
    m->at += length;
    return STATUS_OK;
}

enum status pickle_machine_take_line(struct pickle_machine *m, struct pickle_text *out)
{
    const unsigned char *feed = memchr(m->at, '\n', (size_t)(m->end - m->at));
    if (!feed)
        return pickle_machine_fail(m, "a line has no end");
    *out = (struct pickle_text){(const char *)m->at, (size_t)(feed - m->at)};
    m->at = feed + 1;
    return STATUS_OK;
}
