"""Goal: many requests through n stage workers give each the picture it would have had alone, and none is lost.

All pictures are noise of a golden checkpoint; what counts is that they are equal, byte for byte.
"""
import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import tempfile
import time
import unittest

from daemon_process import WAIT_LIMIT_S, Daemon, in_parallel, wait_for, wait_for_an_empty_cache
from many_requests import MODEL, all_alone, alone, check_equal, mixed_requests


class ManyRequestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.requests = mixed_requests(40)
        cls.expected = all_alone(cls.requests)

    def check(self, *options):
        check_equal(self, self.requests, self.expected, *options)

    def test_one_stage(self):
        self.check("--stages", 1)

    def test_two_stages(self):
        self.check("--stages", 2)

    def test_four_stages(self):
        self.check("--stages", 4)

    def test_two_pipelines(self):
        self.check("--stages", 2, "--pipelines", 2)


class ServiceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(MODEL, "--stages", 2).__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def test_reply_tells_the_seed_and_the_usage(self):
        reply = self.daemon.generate(prompt="x", size="64x64", n=3, seed=7, response_format="b64_json").json()
        self.assertEqual(len(reply["data"]), 3)
        self.assertEqual(len({picture["b64_json"] for picture in reply["data"]}), 3)
        self.assertEqual(reply["size"], "64x64")
        self.assertEqual(reply["output_format"], "png")
        self.assertEqual(reply["usage"]["output_tokens"], 3 * 24)  # (64/16)(64/16+1)+4 each

    def test_equal_prompts_are_computed_once(self):
        before = [self.daemon.gauge(f"mgpt:prefix_cache_{name}_total") for name in ("queries", "hits")]
        self.daemon.generate(prompt="two cats on a sofa", size="128x128", n=3, seed=7)
        queries, hits = [self.daemon.gauge(f"mgpt:prefix_cache_{name}_total") - b for name, b in zip(("queries", "hits"), before)]
        # All but the last token of the second and of the third, less what they do not wait for.
        self.assertTrue(queries / 3 < hits <= 2 * (queries / 3 - 1), (queries, hits))

    def test_url_reply(self):
        url = self.daemon.generate(prompt="x", size="64x64", seed=7, response_format="url").json()["data"][0]["url"]
        picture = self.daemon.get(url[url.index("/", 8):] if url.startswith("http") else url)
        self.assertEqual(picture.status, 200)
        self.assertEqual(picture.body, self.daemon.picture(prompt="x", size="64x64", seed=7))

    def test_formats(self):
        for output_format, magic in (("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")):
            self.assertTrue(self.daemon.picture(prompt="x", size="64x64", seed=1, output_format=output_format).startswith(magic))

    def test_models_health_version_metrics(self):
        models = self.daemon.get("/v1/models").json()
        self.assertEqual(models["object"], "list")
        self.assertEqual(models["data"][0]["object"], "model")
        for path in ("/health", "/health/live", "/health/ready", "/version"):
            self.assertEqual(self.daemon.get(path).status, 200, path)
        self.assertIn("mgpt:num_requests_running", {key.split("{")[0] for key in self.daemon.metrics()})

    def test_refusals_name_the_field(self):
        good = {"prompt": "x", "size": "64x64"}
        wrong = [({"prompt": ""}, "prompt"), ({"prompt": 5}, "prompt"), ({"size": "63x64"}, "size"), ({"size": "64"}, "size"),
                 ({"size": "64000x64000"}, "size"), ({"n": 0}, "n"), ({"n": 11}, "n"), ({"n": -1}, "n"), ({"n": 1e99}, "n"), ({"n": 1.5}, "n"),
                 ({"seed": "x"}, "seed"), ({"seed": -1}, "seed"), ({"guidance_scale": "x"}, "guidance_scale"), ({"image_top_k": -1}, "image_top_k"),
                 ({"temperature": -0.5}, "temperature"), ({"response_format": "gif"}, "response_format"), ({"output_format": "gif"}, "output_format"),
                 ({"num_inference_steps": 20}, "num_inference_steps"), ({"model": "other"}, "model"), ({"colour": 1}, "colour")]
        for fields, name in wrong:
            with self.subTest(fields=fields):
                reply = self.daemon.generate(**{**good, **fields})
                self.assertIn(reply.status, (400, 404) if name == "model" else (400,), reply.body)
                error = reply.json()["error"]
                self.assertIn(name, error["message"] + str(error.get("param")))
                self.assertTrue({"message", "type", "code"} <= set(error))

    def test_bodies_that_are_no_requests(self):
        for body in (b"", b"{", b"[]", b"null", b'{"prompt": "\xff"}', b"[" * 100000, b'{"prompt": "a", "prompt": "b"}'):
            with self.subTest(body=body[:20]):
                self.assertEqual(self.daemon.request("POST", "/v1/images/generations", body).status, 400)
        self.assertIn(self.daemon.request("POST", "/v1/images/generations", b" " * (40 << 20)).status, (400, 413))
        self.assertEqual(self.daemon.get("/v1/nothing").status, 404)
        self.assertEqual(self.daemon.get("/v1/images/generations").status, 405)

    def test_disconnect_frees_the_blocks(self):
        connections = []
        for seed in range(4):
            connection = self.daemon.connection()
            connection.request("POST", "/v1/images/generations", json.dumps({"prompt": "x", "size": "512x512", "seed": seed}),
                               {"Content-Type": "application/json"})
            connections.append(connection)
        wait_for(self, "four running requests", lambda: self.daemon.gauge("mgpt:num_requests_running") >= 4)
        for connection in connections:
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
        wait_for(self, "no running request", lambda: self.daemon.gauge("mgpt:num_requests_running") == 0)
        wait_for_an_empty_cache(self, self.daemon)


class LimitsTest(unittest.TestCase):
    def test_full_queue_answers_429(self):
        with Daemon(MODEL, "--stages", 1, "--queue-max", 2) as daemon:
            replies = in_parallel([lambda s=s: daemon.generate(prompt="x", size="256x256", seed=s, n=2, response_format="b64_json")
                                   for s in range(6)])
            self.assertTrue({reply.status for reply in replies} <= {200, 429}, [r.status for r in replies])
            refused = [reply for reply in replies if reply.status == 429]
            self.assertTrue(refused)
            for reply in refused:
                self.assertGreaterEqual(int(reply.headers["Retry-After"]), 1)
                self.assertIn("error", reply.json())

    def test_configuration_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "mgptd.yaml")
            with open(path, "w") as file:
                file.write(f"model: {MODEL}\nstages: 2\nhttp: 127.0.0.1:0\n")
            with Daemon(MODEL, "--config", path) as daemon:
                self.assertEqual(len({c for c in daemon.children()}), 3)  # two stages and the codec
            with open(path, "a") as file:
                file.write("stagges: 2\n")
            with self.assertRaisesRegex(AssertionError, "stagges"):
                Daemon(MODEL, "--config", path).__enter__()


class StartTest(unittest.TestCase):
    def test_requests_before_the_workers_are_loaded_wait(self):
        """HTTP is there first; how many KV blocks there are is not known yet."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fields = {"prompt": "x", "size": "64x64", "seed": 3, "response_format": "b64_json"}

        def ask():
            end = time.monotonic() + WAIT_LIMIT_S
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_LIMIT_S)
                try:
                    connection.request("POST", "/v1/images/generations", json.dumps(fields), {"Content-Type": "application/json"})
                except ConnectionRefusedError:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.001)
                    continue
                with contextlib.closing(connection):
                    response = connection.getresponse()
                    return response.status, json.loads(response.read())

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            early = [pool.submit(ask) for _ in range(2)]
            with Daemon(MODEL, "--stages", 2, "--http", f"127.0.0.1:{port}") as daemon:
                later = daemon.request("POST", "/v1/images/generations", fields)
                for one in early:
                    status, value = one.result()
                    self.assertEqual(status, 200, value)
                    self.assertEqual(value["data"], later.json()["data"])


class FaultsTest(unittest.TestCase):
    def test_a_killed_worker_is_replaced(self):
        request = {"prompt": "x", "size": "512x512", "seed": 3}
        with Daemon(MODEL, "--stages", 2) as daemon:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                replies = [pool.submit(daemon.generate, response_format="b64_json", **request) for _ in range(2)]
                wait_for(self, "tokens", lambda: daemon.gauge("mgpt:generation_tokens_total") > 20)
                os.kill(daemon.children()[0], signal.SIGKILL)
                for reply in (future.result() for future in replies):
                    if reply.status != 200:  # told, not lost; resumed is better
                        self.assertIn(reply.status, (500, 503))
                        self.assertTrue(reply.json()["error"]["message"])
            wait_for(self, "a ready pipeline", lambda: daemon.get("/health/ready").status == 200)
            small = {"prompt": "x", "size": "64x64", "seed": 3, "guidance_scale": 4.0, "image_top_k": 2000}
            self.assertEqual(daemon.picture(**small), alone(small))

    def test_a_killed_daemon_leaves_nothing_behind(self):
        daemon = Daemon(MODEL, "--stages", 2).__enter__()
        workers = daemon.children()
        self.assertEqual(len(workers), 3)
        daemon.process.kill()
        daemon.process.wait()
        wait_for(self, "the workers' end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))
        daemon.__exit__()

    def test_sigterm_lets_running_requests_finish(self):
        with Daemon(MODEL, "--stages", 2) as daemon, concurrent.futures.ThreadPoolExecutor(1) as pool:
            reply = pool.submit(daemon.generate, prompt="x", size="256x256", seed=3, response_format="b64_json")
            wait_for(self, "tokens", lambda: daemon.gauge("mgpt:generation_tokens_total") > 20)
            daemon.process.send_signal(signal.SIGTERM)
            self.assertEqual(reply.result().status, 200)
            self.assertEqual(daemon.process.wait(WAIT_LIMIT_S), 0)
            with self.assertRaises((ConnectionError, http.client.HTTPException)):
                daemon.get("/health")


if __name__ == "__main__":
    unittest.main()
