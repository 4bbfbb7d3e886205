#!/usr/bin/env python3
"""Holds every #include of the tree against the arrows between its folders.

usage: check_includes.py [ROOT]     [the folder above this script]
Prints FILE:LINE: what is wrong, one line each; exit 0 when nothing is, 1 when something is, 2 on wrong use.
What it asks:
- a file of a folder includes that folder and those its arrows (ARROWS) lead to, by names rooted at ROOT ("base/error.h");
  programs of unit tests and benchmarks (*_test.c, *_bench.c) lie in a folder and keep its arrows;
- what lies below another folder's parts in PRIVATE is that folder's own business, as is every *_test or *_bench file;
- base/ and scheduler/ include no library (tests may: cmocka), and scheduler/ asks nobody for the time;
- nothing includes tests/ or deploy/, and no name is hidden behind a macro.
A folder that ARROWS does not know may hold no C.
"""
import os
import re
import sys

ARROWS = {
    "base": [],
    "model": ["base"],
    "kernels": ["base"],
    "proto": ["base"],
    "scheduler": ["model", "base"],
    "worker": ["kernels", "model", "proto", "base"],
    "daemon": ["scheduler", "model", "proto", "base"],
}
FREE = ["tests", "deploy"]  # may include everything; nothing includes them
PRIVATE = ["kernels/cpu/", "kernels/ref/", "kernels/cuda/", "daemon/cli/"]
NO_LIBRARIES = ["base", "scheduler"]
NO_CLOCK = {"scheduler": ["base/clock.h", "time.h", "sys/time.h", "sys/timerfd.h"]}
# ISO C11 and the parts of POSIX and Linux that live in libc, by name or by folder.
LIBC = set("""alloca assert complex ctype dirent dlfcn endian errno execinfo fcntl fenv float getopt grp ifaddrs inttypes iso646
    langinfo limits link locale malloc math memory mqueue netdb poll pthread pwd regex sched semaphore setjmp signal spawn stdalign
    stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings syslog tgmath threads time uchar ucontext unistd
    wchar wctype""".split())
LIBC_FOLDERS = ["sys/", "linux/", "netinet/", "net/", "arpa/", "asm/", "bits/"]
EXTENSIONS = (".c", ".h", ".inc", ".cu", ".cuh", ".cc", ".cpp", ".hpp")

COMMENT_OR_STRING = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
INCLUDE = re.compile(r"^[ \t]*(?:#|%:)[ \t]*(?:include|include_next|import)\b[ \t]*([^\n]*)", re.MULTILINE)
NAME = re.compile(r"^(?:\"([^\"]+)\"|<([^>]+)>)\s*$")


def without_comments(text):
    """The text with comments blanked out and continued lines joined; lines keep their numbers."""
    def blank(match):
        found = match.group()
        return " " + "\n" * found.count("\n") if found[0] == "/" else found

    lines, joined, waiting = text.split("\n"), [], 0
    continued = ""
    for line in lines:
        continued += line
        if line.endswith("\\"):
            continued, waiting = continued[:-1], waiting + 1
            continue
        joined += [continued] + [""] * waiting
        continued, waiting = "", 0
    return COMMENT_OR_STRING.sub(blank, "\n".join(joined + ([continued] if continued else [])))


def includes(text):
    """(line, name, is_quoted) of each #include; name is None when it is not spelled out."""
    bare = without_comments(text)
    for match in INCLUDE.finditer(bare):
        line = bare.count("\n", 0, match.start()) + 1
        name = NAME.match(match.group(1))
        if name:
            yield line, name.group(1) or name.group(2), name.group(1) is not None
        else:
            yield line, None, False


def is_program(path):
    """A unit test or a benchmark."""
    return re.search(r"_(test|bench)\.c$", path) is not None


def is_libc(name):
    return any(name.startswith(f) for f in LIBC_FOLDERS) or (name.endswith(".h") and name[:-2] in LIBC)


def wrong_project_include(path, folder, name):
    """What is wrong with including `name`, a file of this tree, or None."""
    target = name.split("/")[0]
    if os.path.normpath(name) != name:
        return f'"{name}" is not spelled straight, expected "{os.path.normpath(name)}"'
    if target in FREE:
        return f'nothing includes {target}/: "{name}"'
    if target != folder and target not in ARROWS[folder]:
        allowed = ", ".join(ARROWS[folder]) or "libc alone"
        return f'no arrow leads from {folder}/ to {target}/: "{name}" (from {folder}/: {allowed})'
    if target != folder and any(name.startswith(p) for p in PRIVATE):
        return f'"{name}" is private to {target}/'
    if re.search(r"_(test|bench)\.[a-z]+$", name):
        return f'"{name}" belongs to a test or a benchmark'
    if name in NO_CLOCK.get(folder, []) and not is_program(path):
        return f'time comes to {folder}/ as an argument: "{name}"'
    return None


def wrong_outside_include(path, folder, name):
    """The same for a file that is not of this tree."""
    if name in NO_CLOCK.get(folder, []) and not is_program(path):
        return f"time comes to {folder}/ as an argument: <{name}>"
    if folder in NO_LIBRARIES and not is_libc(name) and not (is_program(path) and name == "cmocka.h"):
        return f"{folder}/ uses libc alone: <{name}>"
    return None


def check_file(root, path):
    """Yields (line, what is wrong) for one file."""
    folder = path.split("/")[0]
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        text = file.read()
    if folder not in ARROWS:
        yield 1, f"{folder}/ has no arrows in tests/check_includes.py, so it may hold no C"
        return
    for line, name, is_quoted in includes(text):
        wrong = None
        if name is None:
            wrong = "the name of an include is not spelled out"
        elif name.split("/")[0] in list(ARROWS) + FREE and "/" in name:
            wrong = wrong_project_include(path, folder, name)
        elif is_quoted:
            wrong = f'"{name}" is not rooted at the tree: expected "FOLDER/..." or <{name}>'
        else:
            wrong = wrong_outside_include(path, folder, name)
        if wrong:
            yield line, wrong


def c_files(root):
    """Paths of all C below the folders of the tree, but for those that may include everything and build folders."""
    for folder in sorted(os.listdir(root)):
        is_build = folder.startswith(("build", ".")) or os.path.exists(os.path.join(root, folder, "CMakeCache.txt"))
        if not os.path.isdir(os.path.join(root, folder)) or is_build or folder in FREE:
            continue
        for where, _, files in os.walk(os.path.join(root, folder)):
            for name in files:
                if name.endswith(EXTENSIONS):
                    yield os.path.relpath(os.path.join(where, name), root).replace(os.sep, "/")


def check_tree(root):
    """A list of "FILE:LINE: what is wrong", and the number of files looked at."""
    files = sorted(c_files(root))
    return [f"{path}:{line}: {wrong}" for path in files for line, wrong in check_file(root, path)], len(files)


def main(arguments):
    if len(arguments) > 2 or (len(arguments) == 2 and not os.path.isdir(arguments[1])):
        print(__doc__.split("\n\n")[1].split("\n")[0], file=sys.stderr)
        return 2
    root = arguments[1] if len(arguments) == 2 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    problems, n_files = check_tree(root)
    print("\n".join(problems), end="\n" if problems else "")
    print(f"{n_files} files, {len(problems)} wrong includes", file=sys.stderr)
    if n_files == 0:
        print(f"'{root}' holds no C: nothing was checked", file=sys.stderr)
    return 1 if problems or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
