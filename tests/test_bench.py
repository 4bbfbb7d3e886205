"""Goal: mgpt bench counts what it did, says it in every figure of its vocabulary, draws its chart, and refuses wrong use."""
import json
import os
import tempfile
import unittest
import xml.etree.ElementTree as xml

from daemon_process import Daemon
from harness import GOLDENS, mgpt, mgpt_json, refused, run

MODEL = GOLDENS[0].model
TOKENS_64 = 4 * 5 + 1  # of a 64x64 picture: codes and new lines, and its end
RUN_KEYS = {"load", "requests", "failed", "failure", "wall_s", "images_per_min", "tokens_per_s", "first_row_s", "image_s", "goodput_per_min",
            "deadline_s", "prompt_tokens", "rows_per_read", "hop_bytes", "busy_share", "busy_share_active", "codec_busy_s", "stages", "read_bytes",
            "operations", "limit_s", "images_per_min_limit", "of_limit", "of_mean_limit", "times_first"}
LOCAL = ["bench", "--local", MODEL, "--size", "64x64", "--requests", 4, "--concurrency", 2]


class BenchTest(unittest.TestCase):
    def check_run(self, value, requests):
        self.assertEqual(set(value), RUN_KEYS)
        self.assertEqual((value["requests"], value["failed"], value["failure"]), (requests, 0, ""))
        self.assertAlmostEqual(value["images_per_min"] * value["wall_s"] / 60, requests, places=3)
        for times in (value["first_row_s"], value["image_s"]):
            self.assertTrue(0 < times["p50"] <= times["p95"] <= times["p99"] <= value["wall_s"], times)
        self.assertLess(value["first_row_s"]["p50"], value["image_s"]["p50"])
        self.assertTrue(0 < value["busy_share"] <= 1.0, value["busy_share"])
        self.assertLessEqual(value["busy_share"], value["busy_share_active"] + 1e-9)
        self.assertGreaterEqual(value["rows_per_read"], 2)  # guided: two rows at least

    def test_closed_loop_on_workers_of_its_own(self):
        report = mgpt_json(*LOCAL, "--stages", 2, "--json")
        self.assertEqual(set(report), {"version", "commit", "machine", "limits", "model", "server", "runs"})
        self.assertEqual(set(report["machine"]), {"cpu", "cpus", "code_path", "system", "memory_bytes"})
        self.assertEqual((report["model"]["hidden"], report["model"]["layers"], report["model"]["compute"]), (64, 4, "bf16"))
        for limit in report["limits"]:
            self.assertTrue(0 < limit["read_mean_bytes_s"] <= limit["read_bytes_s"], limit)
            self.assertTrue(0 < limit["dense_mean_flop_s"] <= limit["dense_flop_s"], limit)
        (value,) = report["runs"]
        self.check_run(value, 4)
        self.assertEqual(value["load"]["loop"], "closed")
        self.assertEqual(value["load"]["prompts"], 8)
        self.assertAlmostEqual(value["tokens_per_s"] * value["wall_s"], 4 * TOKENS_64, places=3)
        self.assertEqual(len(value["stages"]), 2)
        self.assertAlmostEqual(sum(s["busy_share"] for s in value["stages"]) / 2, value["busy_share"], delta=0.05)
        # The hidden states of two guided pictures: 64 values of 2 bytes a row, a header on top.
        self.assertGreater(value["hop_bytes"], 2 * 64 * 2)
        self.assertTrue(0 < value["of_limit"] <= value["of_mean_limit"] < 1, value)

    def test_levels_table_and_chart(self):
        with tempfile.TemporaryDirectory() as folder:
            chart = os.path.join(folder, "chart.svg")
            table = mgpt("bench", "--local", MODEL, "--size", "64x64", "--requests", 3, "--concurrency", "1,3", "--no-pixels",
                         "--chart", chart).decode()
            self.assertIn("1 open", table)
            self.assertIn("3 open", table)
            root = xml.parse(chart).getroot()
            self.assertTrue(root.tag.endswith("svg"))
            self.assertGreaterEqual(len(root.findall(".//{*}polyline")), 4)

    def test_open_loop_and_mix_on_a_daemon(self):
        with Daemon(MODEL, "--stages", 2) as daemon, tempfile.TemporaryDirectory() as folder:
            mix = os.path.join(folder, "mix")
            with open(mix, "w") as file:
                file.write("64x64 3 # three of four\n\n96x64\n")
            report = mgpt_json("bench", "--url", f"http://{daemon.address}", "--mix", mix, "--rate", 1200, "--requests", 8, "--json")
            (value,) = report["runs"]
            self.check_run(value, 8)
            self.assertEqual(value["load"]["loop"], "open")
            self.assertEqual([s["size"] for s in value["load"]["mix"]], ["64x64", "96x64"])
            self.assertEqual(report["model"]["hidden"], 64)
            self.assertEqual(len(value["stages"]), 2)
            self.assertEqual(daemon.gauge("mgpt:request_success_total"), 9)  # one to warm up

    def test_failed_requests_are_counted_and_exit_1(self):
        """A picture that cannot have this size fails; with --warm 0 it is counted, told, and the exit code says it."""
        done = run("mgpt", "bench", "--local", MODEL, "--size", "2048x2048", "--requests", 2, "--concurrency", 1, "--warm", 0, "--json")
        self.assertEqual(done.returncode, 1)
        (value,) = json.loads(done.stdout)["runs"]
        self.assertEqual((value["failed"], value["images_per_min"]), (2, 0))
        self.assertIn("positions", value["failure"])
        self.assertIn("2 of 2 requests failed", done.stderr.decode())

    def test_wrong_use(self):
        with tempfile.TemporaryDirectory() as folder:
            mix = os.path.join(folder, "mix")
            with open(mix, "w") as file:
                file.write("64x64 0\n")
            for code, more, word in ((2, ["--concurrency", "0"], "--concurrency"), (2, ["--concurrency", "1,,2"], "--concurrency"),
                                     (2, ["--concurrency", "2", "--rate", "5"], "exclude"), (2, ["--rate", "-1"], "--rate"),
                                     (2, ["--mix", mix, "--size", "64x64"], "exclude"), (2, ["--no-pixels"], "--local"),
                                     (2, ["--url", "x", "--local", MODEL], "exclude"), (2, ["--requests", "0"], "--requests"),
                                     (1, ["--local", MODEL, "--mix", mix], "line 1"), (1, ["--local", "/nowhere"], "/nowhere"),
                                     (1, ["--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
                                     (1, ["--local", MODEL, "--size", "2048x2048"], "positions")):
                with self.subTest(more=more):
                    self.assertIn(word, refused(self, code, "bench", *more))

    def test_limits_of_the_machine(self):
        done = run("mgpt-worker", "--measure", "--ms", 20, "--threads", 2)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual([limit["threads"] for limit in report["limits"]], [1, 2])
        self.assertTrue(all(limit["read_mean_bytes_s"] > 1e8 and limit["dense_mean_flop_s"] > 1e8 for limit in report["limits"]))
        self.assertEqual(run("mgpt-worker", "--measure", "--threads", "x").returncode, 2)


if __name__ == "__main__":
    unittest.main()
