/*
 * shared_library.h - a library that is loaded when it is first asked for, because few programs need
 * it or few machines have it.
 *
 * Owns:    the library, until the process ends.   Threads: one at a time.
 */
#ifndef MGPT_BASE_SHARED_LIBRARY_H
#define MGPT_BASE_SHARED_LIBRARY_H

struct shared_library {
    const char *soname; /* "libnccl.so.2", looked for on the loader's path, ... */
    const char *folder; /* ... then where it was when this was built */
    void *handle;       /* NULL: not loaded yet */
};

/* The address of a function or variable; NULL: the library, or the name in it, is not there. */
void *shared_library_find(struct shared_library *library, const char *name);

#endif
