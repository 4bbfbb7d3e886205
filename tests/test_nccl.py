"""Goal: stages on devices linked by NCCL give the same bits as one stage, survive the loss of any of them, and say what to do
where devices do not fit.

Runs in builds with -DMGPT_SIMGPU=ON, as ./run test makes one in BUILD/sim; in others the tests are skipped.
"""
import os
import signal
import tempfile
import unittest
from unittest import mock

from daemon_process import Daemon, wait_for
from harness import BUILD, GOLDENS, mgpt, mgpt_json, refused, write_json
from test_faults import Running, is_codec

IS_SIMULATED = os.path.exists(os.path.join(BUILD, "tests", "broken_kernels"))
MODEL = GOLDENS[0].model
ON_DEVICE = ("--device", "cuda")
SIZE = "128x64"  # long enough to be hit in the middle


def generate(*more, size="64x32", **environment):
    return mgpt_json("inspect", "generate", "--model", MODEL, "--prompt", "a fox", "--size", size, "--seed", 3, *more, env=environment)


def links(answer):
    return [stage["link"] for stage in answer["stages"]]


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class SameBits(unittest.TestCase):
    def test_tokens(self):
        for compute in ("f32", "bf16"):
            alone = generate(*ON_DEVICE, "--compute", compute)
            for stages, cut in ((2, ("--stages", 2)), (4, ("--stages", 4)), (3, ("--cut", "0a,0f-1a,1f-3"))):
                with self.subTest(compute=compute, cut=cut):
                    answer = generate(*ON_DEVICE, "--compute", compute, *cut)
                    self.assertEqual(answer["ids"], alone["ids"])
                    self.assertEqual(links(answer), ["nccl"] * (stages - 1) + [""])

    def test_logits(self):
        with tempfile.TemporaryDirectory() as folder:
            ids = write_json(os.path.join(folder, "ids.json"), GOLDENS[0].cases["logits"][2]["ids"][:70])
            def logits(*more):
                out = os.path.join(folder, "out.safetensors")
                mgpt("inspect", "logits", "--model", MODEL, "--ids", ids, "--positions", "0,5,63,64,69", "--out", out, *ON_DEVICE, *more)
                with open(out, "rb") as result:
                    return result.read()
            alone = logits()
            for more in (("--stages", 2), ("--stages", 4, "--chunk", 9), ("--stages", 2, "--link", "zmq"), ("--cut", "0-2a,2f-3")):
                with self.subTest(more=more):
                    self.assertEqual(logits(*more), alone)

    def test_two_stages_on_one_device(self):
        """NCCL takes them for two hosts; without that it refuses, as the real library does."""
        alone, shared = generate(*ON_DEVICE), generate("--device", "cuda:1", "--stages", 2)
        self.assertEqual(shared["ids"], alone["ids"])
        self.assertEqual(links(shared), ["nccl", ""])

    def test_zmq_where_it_is_asked_for(self):
        self.assertEqual(links(generate(*ON_DEVICE, "--stages", 2, "--link", "zmq")), ["zmq", ""])


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class Losses(unittest.TestCase):
    """A stage is killed in the middle of two pictures; NCCL sees it, or (silent) does not, as between devices that share memory."""

    @classmethod
    def setUpClass(cls):
        with Daemon(MODEL, *ON_DEVICE) as daemon:
            cls.expected = [reply.json()["data"] for reply in Running(daemon, 2, SIZE).end()]

    def test_killed_stages(self):
        for stage, mode in ((0, ""), (1, "silent"), (2, "")):
            with self.subTest(stage=stage, mode=mode), mock.patch.dict(os.environ, SIMGPU_NCCL=mode):
                self.kill(stage)

    def test_a_link_that_is_lost_while_its_stages_live(self):
        with mock.patch.dict(os.environ, SIMGPU_NCCL_LOSE="0,20,0"), Daemon(MODEL, *ON_DEVICE, "--stages", 3) as daemon:
            for reply, expected in zip(Running(daemon, 2, SIZE).end(), self.expected):
                self.assertEqual(reply.status, 200, reply.body[:500])
                self.assertEqual(reply.json()["data"], expected)
            self.assertEqual(daemon.gauge("mgpt:worker_restarts_total"), 0)
            log = daemon.log_text()
            self.assertIn("as SIMGPU_NCCL_LOSE wants it", log)
            self.assertIn("forms anew", log)

    def kill(self, stage):
        with Daemon(MODEL, *ON_DEVICE, "--stages", 3) as daemon:
            stages = [pid for pid in daemon.children() if not is_codec(pid)]
            running = Running(daemon, 2, SIZE)
            wait_for(self, "tokens", lambda: daemon.gauge("mgpt:generation_tokens_total") > 6)
            os.kill(stages[stage], signal.SIGKILL)
            for reply, expected in zip(running.end(), self.expected):
                self.assertEqual(reply.status, 200, reply.body[:500])
                self.assertEqual(reply.json()["data"], expected)
            self.assertEqual(daemon.gauge("mgpt:worker_restarts_total"), 1)
            log = daemon.log_text()
            self.assertIn("link=nccl", log)
            left = [pid for pid in stages if pid in daemon.children()]
            self.assertEqual(len(left), 2, "the other stages live on")


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class InspectDevice(unittest.TestCase):
    def test_what_there_is(self):
        environment = {"SIMGPU_DEVICES": "2", "SIMGPU_MEMORY_MB": "8192,64", "SIMGPU_CAPABILITY": "8.0,7.5", "SIMGPU_NCCL_VERSION": "22705"}
        cuda = mgpt_json("inspect", "device", env=environment)["cuda"]
        self.assertEqual((cuda["driver"], cuda["runtime"], cuda["nccl"]), ("13.0", "13.0", "2.27.5"))
        self.assertNotIn("error", cuda)
        first, second = cuda["devices"]
        self.assertEqual((first["index"], first["path"], first["memory_bytes"]), (0, "sm_80", 8192 << 20))
        self.assertLessEqual(first["free_bytes"], first["memory_bytes"])
        self.assertIn("expected sm_80 or newer", second["error"])
        self.assertEqual(mgpt_json("inspect", "device", "--device", "cuda:0", env=environment), {"cuda": {**cuda, "devices": [first]}})
        for device, word in (("cuda:1", "sm_75"), ("cuda:2", "no CUDA device 2: this machine has 2")):
            self.assertIn(word, refused(self, 1, "inspect", "device", "--device", device, env=environment))

    def test_no_driver(self):
        self.assertIn("driver", mgpt_json("inspect", "device", env={"SIMGPU_DEVICES": "-1"})["cuda"]["error"])
        self.assertIn("driver", refused(self, 1, "inspect", "device", "--device", "cuda", env={"SIMGPU_DEVICES": "-1"}))


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class Refusals(unittest.TestCase):
    """One line each that says what to do."""

    def refused(self, *words, more=(), **environment):
        text = refused(self, 1, "inspect", "generate", "--model", MODEL, "--prompt", "a", "--size", "32x32", *more, env=environment)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(text.count("\n"), 1, text)

    def test_other_capabilities(self):
        self.refused("sm_80", "sm_90", "devices of one kind", more=(*ON_DEVICE, "--stages", 2), SIMGPU_CAPABILITY="8.0,9.0")

    def test_a_device_that_is_too_old(self):
        self.refused("sm_75, expected sm_80 or newer", more=ON_DEVICE, SIMGPU_CAPABILITY="7.5")

    def test_too_little_memory(self):
        self.refused("needs 318 MiB", "KV cache 187", "recorded steps 128", "of 200", "--stages", "--kv-blocks", SIMGPU_MEMORY_MB="200",
                     more=(*ON_DEVICE, "--stages", 2, "--kv-blocks", 3000))

    def test_other_versions_of_nccl(self):
        self.refused("2.28.3", "2.27.5", "install the same NCCL", more=(*ON_DEVICE, "--stages", 2),
                     SIMGPU_NCCL_VERSION="22803,22705")
        generate(*ON_DEVICE, "--stages", 2, "--link", "zmq", SIMGPU_NCCL_VERSION="22803,22705")

    def test_nccl_without_devices(self):
        self.refused("--link zmq", more=("--stages", 2, "--link", "nccl"))


if __name__ == "__main__":
    unittest.main()
