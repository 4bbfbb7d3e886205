"""Goal: the tree keeps the rules of the house: include arrows, READMEs that name what is there, sizes."""
import fnmatch
import os
import re
import subprocess
import sys
import unittest

from harness import BUILD, ROOT

TREE_BYTES_MAX = 55 * 1000 * 1000
LINES_MAX = 700
FOLDERS = ["base", "model", "kernels", "proto", "scheduler", "worker", "daemon", "deploy", "tests"]


def tracked():
    """Files git knows, or all files where the tree came without git."""
    try:
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True).stdout
        return [f for f in listed.decode().split("\0") if f and os.path.exists(os.path.join(ROOT, f))]
    except (FileNotFoundError, subprocess.CalledProcessError):
        pass
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if not f.startswith("build") and f != "__pycache__"]
        found += [os.path.relpath(os.path.join(folder, f), ROOT) for f in files]
    return found


class TreeTest(unittest.TestCase):
    def test_include_arrows(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "check_includes.py"), ROOT], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_readme_names_its_files(self):
        for folder in FOLDERS:
            with self.subTest(folder=folder), open(os.path.join(ROOT, folder, "README.md")) as file:
                named = set(re.findall(r"[\w*-]+", file.read()))  # words, and patterns as in fake_*.h
                for name in sorted(os.listdir(os.path.join(ROOT, folder))):
                    stem, extension = os.path.splitext(name)
                    if extension in (".h", ".proto") or os.path.isdir(os.path.join(ROOT, folder, name)) and not name.startswith("_"):
                        self.assertTrue(any(fnmatch.fnmatch(stem, word) for word in named if word.strip("*")),
                                        f"{folder}/README.md does not name {name}")

    def test_sizes(self):
        files = tracked()
        self.assertLess(sum(os.path.getsize(os.path.join(ROOT, f)) for f in files), TREE_BYTES_MAX)
        for name in files:
            if name.endswith((".c", ".h", ".cu", ".cuh", ".py", ".sh", ".js", "/run")):
                with self.subTest(file=name), open(os.path.join(ROOT, name)) as file:
                    self.assertLessEqual(sum(1 for _ in file), LINES_MAX)

    def test_a_second_build_compiles_no_kernel(self):
        """nvcc takes minutes; lists of headers that ninja does not take would have it run in every build."""
        done = subprocess.run(["ninja", "-C", BUILD], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("] nvcc ", done.stdout)


if __name__ == "__main__":
    unittest.main()
