/*
 * shared_library.c - dlopen and dlsym.
 */
#include "base/shared_library.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>

void *shared_library_find(struct shared_library *library, const char *name)
{
    char path[PATH_MAX];
    if (!library->handle)
        library->handle = dlopen(library->soname, RTLD_NOW | RTLD_LOCAL);
    if (!library->handle &&
        snprintf(path, sizeof(path), "%s/%s", library->folder, library->soname) < (int)sizeof(path))
        library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return library->handle ? dlsym(library->handle, name) : NULL;
}
