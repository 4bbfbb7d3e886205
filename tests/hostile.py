"""What the tests with hostile input share: spoilt checkpoint folders, things that are no files, how a refusal looks."""
import os
import shutil
import tempfile

from harness import GOLDEN, GOLDENS, run

MODEL = GOLDENS[0].model
PICTURES = os.path.join(GOLDEN, "pictures")
LIMIT_S = 120  # for one program, sanitizers and a busy machine included; a hang meets it


def golden(name):
    with open(os.path.join(MODEL, name), "rb") as file:
        return file.read()


class Folder:
    """with Folder({"config.json": b"..."}) as path: the golden folder by links, with these files instead of its own."""

    def __init__(self, files):
        self.files = files

    def __enter__(self):
        self.path = tempfile.mkdtemp()
        os.mkdir(os.path.join(self.path, "tokenizer"))
        for at, _, names in os.walk(MODEL):
            for name in names:
                path = os.path.relpath(os.path.join(at, name), MODEL)
                if path not in self.files:
                    os.symlink(os.path.join(MODEL, path), os.path.join(self.path, path))
        for name, data in self.files.items():
            path = os.path.join(self.path, name)
            if callable(data):  # makes something else in the file's place
                data(path)
                continue
            with open(path, "wb") as file:
                file.write(data)
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


def refused(test, words, *args, program="mgpt", **more):
    """The program ends with exit 1 in time, says one line with all of these words, and writes no answer."""
    done = run(program, *args, limit_s=LIMIT_S, **more)
    text = done.stderr.decode()
    test.assertNotIn("Sanitizer", text, text[-3000:])
    test.assertEqual(done.returncode, 1, text)
    test.assertEqual(done.stdout, b"")
    own = [line for line in text.splitlines() if line.startswith(program + ": ")]  # besides the workers' log
    test.assertEqual(len(own), 1, text)
    for word in words:
        test.assertIn(word, own[0])


def wrong_use(test, *args, program="mgpt"):
    """The program ends with exit 2 and one line, which is returned."""
    done = run(program, *args, limit_s=LIMIT_S)
    text = done.stderr.decode()
    test.assertEqual(done.returncode, 2, text)
    test.assertEqual(done.stdout, b"")
    test.assertEqual(text.count("\n"), 1, text)
    return text


NO_FILES = [
    ("a folder", os.mkdir, ["is a folder, expected a regular file"]),
    ("a pipe", os.mkfifo, ["is a pipe, expected a regular file"]),
    ("a device", lambda path: os.symlink("/dev/zero", path), ["is a device, expected a regular file"]),
    ("a link to itself", lambda path: os.symlink(path, path), ["cannot open", "symbolic links"]),
    ("a link to nowhere", lambda path: os.symlink("nowhere", path), ["cannot open", "no such file"]),
    ("4 TB of nothing", lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 42), []),
]
