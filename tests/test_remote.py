"""Goal: stages on other machines (mgpt-worker --connect) draw the pictures that stages of this machine draw, whoever is lost comes back or is
replaced, and who does not fit is told why in one line and harms nobody.
"""
import json
import os
import shutil
import signal
import socket
import tempfile
import unittest
from unittest import mock

from daemon_process import Daemon, wait_for
from harness import GOLDENS, ROOT, mgpt, run
from remote_machines import Network, RemoteDaemon, Worker, make_keys
from test_faults import Running, is_codec

MODEL = GOLDENS[0].model
SMALL = {"prompt": "a fox", "size": "64x64", "seed": 5}


def flip_a_bit_of_each(path):
    """Of every tensor of a safetensors file."""
    with open(path, "r+b") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        for name, entry in json.loads(file.read(header_bytes)).items():
            if name == "__metadata__":
                continue
            file.seek(8 + header_bytes + entry["data_offsets"][0])
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))


class RemoteTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.network = Network().__enter__()
        cls.addClassCleanup(cls.network.__exit__)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.key, cls.keys = make_keys(os.path.join(cls.folder, "keys"), 3)
        with Daemon(MODEL, "--stages", 2) as daemon:
            cls.small = daemon.picture(**SMALL)
            cls.expected = [reply.json()["data"] for reply in Running(daemon, 2).end()]

    def daemon(self, *options, stages="1", port=0):
        return RemoteDaemon(self, self.network, MODEL, self.key, "--stages", 2, "--remote-stages", stages, *options, port=port)

    def worker(self, daemon, key=0, model=MODEL, *options, machine=0):
        port = daemon if isinstance(daemon, int) else daemon.port
        return Worker(self, self.network, port, "--model", model, "--key", self.keys[key] if isinstance(key, int) else key, *options,
                      machine=machine)

    def check(self, replies):
        for reply, expected in zip(replies, self.expected):
            self.assertEqual(reply.status, 200, reply.body[:500])
            self.assertEqual(reply.json()["data"], expected)

    def wait_tokens(self, daemon):
        before = daemon.gauge("mgpt:generation_tokens_total")
        wait_for(self, "tokens", lambda: daemon.gauge("mgpt:generation_tokens_total") > before + 40)

    def refused(self, worker, *words):
        """The worker ends with 1 and says why in its last line."""
        self.assertEqual(worker.process.wait(60), 1, worker.log_text())
        last = worker.log_text().splitlines()[-1]
        for word in words:
            self.assertIn(word, last)
        self.assertIn(" error worker ends ", last)

    def test_any_stage_may_be_remote(self):
        for stages in ("0", "1", "all"):
            with self.subTest(stages=stages), self.daemon(stages=stages) as daemon:
                n = 2 if stages == "all" else 1
                wait_for(self, "its first look", lambda: daemon.get("/health/ready").json()["stages"] == 2)
                ready = daemon.get("/health/ready")
                self.assertEqual((ready.status, ready.json()["status"], ready.json()["workers_missing"]), (503, "waiting", n))
                self.assertIn(f"waiting for {n} of {n} workers of other machines at tcp://", ready.json()["message"])
                workers = [self.worker(daemon, k, machine=k) for k in range(n)]
                daemon.wait_ready()
                self.assertEqual(daemon.picture(**SMALL), self.small)
                self.assertEqual(daemon.gauge("mgpt:remote_workers"), n)
                self.assertEqual(daemon.gauge("mgpt:remote_workers_missing"), 0)
                self.assertEqual(daemon.get("/health/ready").status, 200)
                self.assertNotIn(workers[0].process.pid, daemon.children())
                for worker, address in zip(workers, self.network.there):
                    self.assertIn("loaded", worker.log_text())
                    self.assertRegex(daemon.log_text(), rf"worker has a place name=\"stage 0\.\d\" address={address} ")

    def test_stages_of_two_pipelines(self):
        """One stage of each is far away; pictures go to both, and one that loses its worker leaves the other at work."""
        with self.daemon("--pipelines", 2, stages="0.1,1.0") as daemon:
            first, second = self.worker(daemon, 0), self.worker(daemon, 1, machine=1)
            daemon.wait_ready()
            self.check(Running(daemon, 2).end())
            second.kill()
            first.kill()
            wait_for(self, "the losses", lambda: daemon.gauge("mgpt:remote_workers_missing") == 2)
            running = Running(daemon, 2)
            self.worker(daemon, 2)
            wait_for(self, "one pipeline at work", lambda: daemon.gauge("mgpt:remote_workers_missing") == 1)
            self.worker(daemon, 0, machine=1)
            self.check(running.end())

    def test_a_killed_worker_is_replaced_in_the_middle_of_pictures(self):
        for stages in ("0", "1"):
            with self.subTest(stages=stages), self.daemon(stages=stages) as daemon:
                first = self.worker(daemon)
                daemon.wait_ready()
                running = Running(daemon, 2)
                self.wait_tokens(daemon)
                first.kill()
                wait_for(self, "the loss", lambda: daemon.gauge("mgpt:remote_workers_missing") == 1)
                self.assertEqual(daemon.get("/health/ready").json()["status"], "waiting")
                self.worker(daemon, 1)
                self.check(running.end())
                self.assertEqual(daemon.gauge("mgpt:worker_restarts_total"), 1)

    def test_a_spare_takes_the_place(self):
        with self.daemon() as daemon:
            first = self.worker(daemon)
            daemon.wait_ready()
            spare = self.worker(daemon, 1)
            wait_for(self, "a spare", lambda: daemon.gauge("mgpt:remote_workers_spare") == 1)
            wait_for(self, "its word", lambda: "waits as a spare" in spare.log_text())
            running = Running(daemon, 2)
            self.wait_tokens(daemon)
            first.kill()
            self.check(running.end())
            self.assertEqual(daemon.gauge("mgpt:remote_workers_spare"), 0)
            spare.kill()
            wait_for(self, "the loss", lambda: daemon.gauge("mgpt:remote_workers_missing") == 1)

    def test_a_local_stage_beside_a_remote_one_is_replaced(self):
        with self.daemon() as daemon:
            worker = self.worker(daemon)
            daemon.wait_ready()
            running = Running(daemon, 2)
            self.wait_tokens(daemon)
            stage = next(pid for pid in daemon.children() if not is_codec(pid))
            os.kill(stage, signal.SIGKILL)
            self.check(running.end())
            self.assertIsNone(worker.process.poll())

    def test_a_hanging_worker_is_lost_and_begins_anew(self):
        with self.daemon("--step-wait-s", 4) as daemon:
            worker = self.worker(daemon)
            daemon.wait_ready()
            running = Running(daemon, 2)
            self.wait_tokens(daemon)
            os.kill(worker.process.pid, signal.SIGSTOP)
            wait_for(self, "the loss", lambda: daemon.gauge("mgpt:remote_workers_missing") == 1)
            os.kill(worker.process.pid, signal.SIGCONT)
            self.check(running.end())
            self.assertIn("begins anew", worker.log_text())

    def test_the_daemon_is_restarted(self):
        """The worker is there first, loses one daemon by SIGKILL and one by SIGTERM, and serves the next."""
        with socket.socket() as free:
            free.bind((self.network.here, 0))
            port = free.getsockname()[1]
        worker = self.worker(port)
        wait_for(self, "a worker that tries", lambda: "nobody answers there" in worker.log_text())
        for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGTERM):
            with self.daemon(port=port) as daemon:
                daemon.wait_ready()
                self.assertEqual(daemon.picture(**SMALL), self.small)
                daemon.process.send_signal(end)
                daemon.process.wait()
        self.assertIsNone(worker.process.poll())
        self.assertEqual(worker.log_text().count("connected endpoint="), 3)

    def test_keys(self):
        """Who has no key is refused; whose server key is another's tries on; the daemon serves all the while."""
        other, strangers = make_keys(os.path.join(self.folder, "other"), 1)
        with open(strangers[0]) as file, open(self.key) as mine:
            server = next(line for line in mine if line.startswith("server"))
            lines = [server if line.startswith("server") else line for line in file]
        unknown = os.path.join(self.folder, "unknown.key")
        with open(os.open(unknown, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.writelines(lines)
        with self.daemon() as daemon:
            self.refused(self.worker(daemon, unknown), "does not know the key", "add the line 'worker ")
            stranger = self.worker(daemon, strangers[0])
            wait_for(self, "its complaint", lambda: "no handshake" in stranger.log_text())
            self.refused(Worker(self, self.network, daemon.port, "--model", MODEL, "--connect", "tcp://203.0.113.9:1"),
                         "--key is needed")
            self.worker(daemon)
            daemon.wait_ready()
            self.assertEqual(daemon.picture(**SMALL), self.small)
            self.assertEqual(stranger.log_text().count("no handshake"), 1)
            self.assertIsNone(stranger.process.poll())
            self.assertIn("its key is no line 'worker'", daemon.log_text())

    def test_another_model_is_refused(self):
        """One of another shape, and one that differs in a bit of each tensor."""
        model = os.path.join(self.folder, "model")
        shutil.copytree(MODEL, model)
        for name in os.listdir(model):
            if name.endswith(".safetensors"):
                flip_a_bit_of_each(os.path.join(model, name))
        with self.daemon() as daemon:
            self.refused(self.worker(daemon, 0, GOLDENS[1].model), "mgptd at 'tcp://")
            self.refused(self.worker(daemon, 1, model), "another checkpoint than mgptd", "--model the same files")
            self.assertIn("another checkpoint", daemon.get("/health/ready").json()["message"])
            self.worker(daemon, 2)
            daemon.wait_ready()
            self.assertEqual(daemon.picture(**SMALL), self.small)

    def test_paths_that_round_differently(self):
        with self.daemon() as daemon, mock.patch.dict(os.environ, MGPT_CPU_PATH="portable"):
            self.refused(self.worker(daemon), "round differently", "devices of one kind", "path=portable")
            self.assertIn("round differently", daemon.get("/health/ready").json()["message"])

    def test_a_codec_is_refused(self):
        with self.daemon() as daemon:
            self.refused(self.worker(daemon, 0, MODEL, "--role", "codec"), "only stages come from other machines")

    def test_links_that_cannot_be_reached(self):
        if not self.network.is_real:
            self.skipTest("two loopback addresses reach each other")
        with self.daemon() as daemon:
            self.refused(self.worker(daemon, 0, MODEL, "--link", "tcp://127.0.0.1:*"), "cannot reach", "--link tcp://ADDRESS:*")
            self.worker(daemon, 0, MODEL, "--link", "tcp://0.0.0.0:*")  # told as the address it came from
            daemon.wait_ready()
            self.assertEqual(daemon.picture(**SMALL), self.small)

    def test_options(self):
        base = ["--model", MODEL, "--http", "127.0.0.1:0", "--stages", 2]
        listen, key = ["--worker-listen", "127.0.0.1:0"], ["--worker-key", self.key]
        empty = os.path.join(self.folder, "empty.key")
        with open(self.key) as file, open(os.open(empty, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
            out.writelines(line for line in file if not line.startswith("worker"))
        for options, word in ((["--remote-stages", "1"], "needs --worker-listen"), (["--remote-stages", "1", *listen], "--worker-key"),
                              ([*listen, *key], "without --remote-stages"), (["--remote-stages", "2", *listen, *key], "of 2 stages"),
                              (["--remote-stages", "x", *listen, *key], "expected all, or stages like"),
                              (["--remote-stages", "1", *listen, "--worker-key", "/nowhere"], "/nowhere"),
                              (["--remote-stages", "1", *listen, "--worker-key", empty], "nobody could come in"),
                              (["--remote-stages", "1", "--worker-listen", "nonsense", *key], "expected HOST:PORT"),
                              (["--remote-stages", "1", "--worker-listen", "203.0.113.9:0", *key], "cannot listen for workers"),
                              (["--remote-stages", "0", "--worker-listen", "*:0", *key], "--link-host ADDRESS")):
            with self.subTest(options=options):
                done = run("mgptd", *base, *options)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(word, done.stderr.decode().splitlines()[-1])

    def test_the_example_configuration(self):
        """deploy/machines/mgptd.yaml is taken as it stands, but for what is this machine's own."""
        with open(os.path.join(ROOT, "deploy", "machines", "mgptd.yaml")) as file:
            self.assertIn("remote-stages: 1-3", file.read())
        daemon = RemoteDaemon(self, self.network, MODEL, self.key, "--config", os.path.join(ROOT, "deploy", "machines", "mgptd.yaml"), "--device", "cpu")
        with daemon:
            self.assertEqual(daemon.get("/health/ready").json()["workers_missing"], 3)

    def test_more_keys(self):
        folder = os.path.join(self.folder, "more")
        make_keys(folder, 1)
        mgpt("make-keys", "--out", folder, "--workers", 2)
        self.assertEqual(sorted(os.listdir(folder)), ["mgptd.key", "worker-1.key", "worker-2.key", "worker-3.key"])
        for name in os.listdir(folder):
            self.assertEqual(os.stat(os.path.join(folder, name)).st_mode & 0o777, 0o600)
        with open(os.path.join(folder, "mgptd.key")) as file:
            self.assertEqual(sum(line.startswith("worker ") for line in file), 3)


if __name__ == "__main__":
    unittest.main()
