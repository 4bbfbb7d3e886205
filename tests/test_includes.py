"""Goal: check_includes.py sees each kind of wrong include, where it stands, and lets right ones pass."""
import os
import subprocess
import sys
import tempfile
import unittest

import check_includes

# A file that breaks one rule on its third line, and a part of what must be said about it.
WRONG = [
    ("base/a.c", '#include "model/config.h"', "no arrow leads from base/ to model/"),
    ("model/a.c", '#include "kernels/stream.h"', "no arrow leads from model/ to kernels/"),
    ("kernels/a.h", '#include "model/config.h"', "no arrow leads from kernels/ to model/"),
    ("kernels/cpu/a.c", '#include "worker/stage.h"', "no arrow leads from kernels/ to worker/"),
    ("kernels/cuda/a.cu", '#include "proto/frame.h"', "no arrow leads from kernels/ to proto/"),
    ("proto/a.c", '#include "scheduler/plan.h"', "no arrow leads from proto/ to scheduler/"),
    ("scheduler/a.c", '#include "proto/frame.h"', "no arrow leads from scheduler/ to proto/"),
    ("scheduler/a.c", '#include "base/clock.h"', "time comes to scheduler/ as an argument"),
    ("scheduler/a.c", "#include <time.h>", "time comes to scheduler/ as an argument"),
    ("worker/a.c", '#include "scheduler/scheduler.h"', "no arrow leads from worker/ to scheduler/"),
    ("worker/a_test.c", '#include "daemon/engine.h"', "no arrow leads from worker/ to daemon/"),
    ("daemon/a.c", '#include "kernels/stream.h"', "no arrow leads from daemon/ to kernels/"),
    ("daemon/cli/a.c", '#include "worker/codec.h"', "no arrow leads from daemon/ to worker/"),
    ("daemon/a.c", '#include <worker/codec.h>', "no arrow leads from daemon/ to worker/"),
    ("worker/a.c", '#include "kernels/cpu/tile.h"', "is private to kernels/"),
    ("worker/a.c", '#include "a.h"', "is not rooted"),
    ("worker/a.c", '#include "../daemon/engine.h"', "is not rooted"),
    ("worker/a.c", '#include "worker/../daemon/engine.h"', "is not spelled straight"),
    ("worker/a.c", '#include "tests/helper.h"', "nothing includes tests/"),
    ("worker/a.c", "#include HEADER", "not spelled out"),
    ("worker/a.c", '#include "base/base_test.c"', "belongs to a test"),
    ("worker/a.c", ' # include /* why */ "daemon/engine.h" // because', "no arrow leads from worker/ to daemon/"),
    ("base/a.c", "#include <zmq.h>", "base/ uses libc alone"),
    ("scheduler/a.c", "#include <jansson.h>", "scheduler/ uses libc alone"),
    ("stray/a.c", "", "has no arrows"),
]

RIGHT = [
    ("base/a.c", '#include "base/error.h"\n#include <stdio.h>\n#include <sys/mman.h>'),
    ("base/a_test.c", "#include <cmocka.h>"),
    ("model/a.c", '#include "base/error.h"\n#include <jansson.h>'),
    ("kernels/cpu/a.c", '#include "kernels/cpu/tile.h"\n#include <immintrin.h>'),
    ("kernels/a_bench.c", '#include "kernels/cpu/tile.h"\n#include "base/clock.h"'),
    ("scheduler/a.c", '#include "model/unirep.h"'),
    ("scheduler/a_bench.c", '#include "base/clock.h"'),
    ("worker/a.c", '#include "proto/mgpt.pb-c.h"\n#include "kernels/stream.h"\n#include "model/config.h"'),
    ("daemon/cli/a.c", '#include "daemon/cli/options.h"\n#include "scheduler/scheduler.h"'),
    ("daemon/a.c", '/* #include "worker/a.h" */\n// #include "worker/a.h"\nconst char *c = "image/*";'),
    ("daemon/a.c", '/*\n#include "worker/a.h"\n*/\nconst char *c = "#include \\"worker/a.h\\"";'),
    ("tests/a.c", '#include "worker/codec.h"\n#include "daemon/engine.h"'),
]


def tree_with(folder, path, text):
    full = os.path.join(folder, path)
    os.makedirs(os.path.dirname(full))
    with open(full, "w") as file:
        file.write(text)


class IncludesTest(unittest.TestCase):
    def test_planted_wrong_includes_are_seen(self):
        for path, line, said in WRONG:
            with self.subTest(path=path, line=line), tempfile.TemporaryDirectory() as folder:
                tree_with(folder, path, f"/* a\n */\n{line}\nint x;\n")
                problems, _ = check_includes.check_tree(folder)
                self.assertEqual(len(problems), 1, problems)
                self.assertIn(said, problems[0])
                place = "1" if said == "has no arrows" else "3"
                self.assertTrue(problems[0].startswith(f"{path}:{place}: "), problems[0])

    def test_right_includes_pass(self):
        for path, text in RIGHT:
            with self.subTest(path=path, text=text), tempfile.TemporaryDirectory() as folder:
                tree_with(folder, path, text + "\n")
                self.assertEqual(check_includes.check_tree(folder)[0], [])

    def test_exit_status(self):
        def status(*arguments):
            return subprocess.run([sys.executable, check_includes.__file__, *arguments], capture_output=True).returncode

        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(status(folder), 1)  # nothing to check is no success
            tree_with(folder, "base/a.c", "int x;\n")
            self.assertEqual(status(folder), 0)
            tree_with(folder, "worker/a.c", '#include "daemon/engine.h"\n')
            self.assertEqual(status(folder), 1)
            self.assertEqual(status(folder, "more"), 2)
            self.assertEqual(status(folder + "/missing"), 2)


if __name__ == "__main__":
    unittest.main()
