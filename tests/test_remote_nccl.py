"""Goal: stages on several machines linked by NCCL (simulated devices, processes apart) draw the pictures of stages on one, survive a loss, and
are refused where their NCCLs differ.

Runs in builds with -DMGPT_SIMGPU=ON, as test_nccl.py does.
"""
import os
import tempfile
import unittest
from unittest import mock

from daemon_process import Daemon, wait_for
from remote_machines import Network, RemoteDaemon, Worker, make_keys
from test_faults import Running
from test_nccl import IS_SIMULATED, MODEL, ON_DEVICE, SIZE


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class RemoteNccl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.network = Network(may_be_real=False).__enter__()  # the stand-in for NCCL finds its peer by a name in one namespace
        cls.addClassCleanup(cls.network.__exit__)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.key, cls.keys = make_keys(os.path.join(folder.name, "keys"), 2)
        with Daemon(MODEL, *ON_DEVICE) as daemon:
            cls.expected = [reply.json()["data"] for reply in Running(daemon, 2, SIZE).end()]

    def daemon(self, stages):
        return RemoteDaemon(self, self.network, MODEL, self.key, *ON_DEVICE, "--stages", 2, "--remote-stages", stages)

    def worker(self, daemon, device=1, *options):
        """Each has a device of its own, or says that it shares one: NCCL then takes them for two hosts (NCCL_HOSTID)."""
        return Worker(self, self.network, daemon.port, "--model", MODEL, "--key", self.keys[0], "--device", f"cuda:{device}", *options)

    def check(self, daemon, replies):
        for reply, expected in zip(replies, self.expected):
            self.assertEqual(reply.status, 200, reply.body[:500])
            self.assertEqual(reply.json()["data"], expected)
        self.assertIn("link=nccl", daemon.log_text())

    def test_same_pictures(self):
        for stages in ("1", "all"):
            with self.subTest(stages=stages), self.daemon(stages) as daemon:
                for _ in range(1 if stages == "1" else 2):
                    self.worker(daemon, 1, "--shares-device")
                daemon.wait_ready()
                self.check(daemon, Running(daemon, 2, SIZE).end())

    def test_a_killed_worker_is_replaced(self):
        with self.daemon("1") as daemon:
            first = self.worker(daemon)
            daemon.wait_ready()
            running = Running(daemon, 2, SIZE)
            wait_for(self, "tokens", lambda: daemon.gauge("mgpt:generation_tokens_total") > 6)
            first.kill()
            self.worker(daemon)
            self.check(daemon, running.end())

    def test_other_versions(self):
        with self.daemon("1") as daemon:
            with mock.patch.dict(os.environ, SIMGPU_NCCL_VERSION="22705"):
                worker = self.worker(daemon)
            self.assertEqual(worker.process.wait(60), 1)
            self.assertIn("install the same NCCL for both, or use --link zmq", worker.log_text().splitlines()[-1])
            on_cpu = Worker(self, self.network, daemon.port, "--model", MODEL, "--key", self.keys[1])
            self.assertEqual(on_cpu.process.wait(60), 1)
            self.assertIn("devices of one kind", on_cpu.log_text().splitlines()[-1])
            self.worker(daemon)
            daemon.wait_ready()


if __name__ == "__main__":
    unittest.main()
