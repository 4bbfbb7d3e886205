"""Goal: whatever a stranger sends to mgptd, the answer comes in bounded time and memory, as HTTP 400 and the like in the OpenAI shape; only
those with the key are served beyond this machine; and a process that was taken over can do little.
"""
import http.server
import json
import os
import socket
import tempfile
import threading
import unittest

from daemon_process import Daemon
from harness import run
from hostile import LIMIT_S, MODEL, refused
from test_hostile_typed import CONTROL


HEAD = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n"
SMALL = b'{"prompt": "x", "size": "64x64", "seed": 1}'
DAEMON_BYTES_MAX = 400 << 20  # of memory; a sanitizer doubles it


def exchange(daemon, request):
    """Sends the bytes on a connection of its own and returns all that comes until the server ends it."""
    host, port = daemon.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), LIMIT_S) as client:
        try:
            client.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer may wait all the same
        return read_to_end(client)


def read_to_end(client):
    got = b""
    try:
        while data := client.recv(1 << 16):
            got += data
    except ConnectionResetError:
        pass
    return got


def peak_bytes(pid):
    return int(status_of(pid)["VmHWM"].split()[0]) << 10


class HttpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(MODEL, "--stages", 2).__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def refusal(self, body, status=400):
        reply = self.daemon.request("POST", "/v1/images/generations", body)
        self.assertEqual(reply.status, status, reply.body[:300])
        error = reply.json()["error"]
        self.assertTrue({"message", "type", "param", "code"} <= set(error))
        self.assertEqual(error["type"], "invalid_request_error")
        return error

    def test_refusals_name_the_field(self):
        cases = [("prompt", value) for value in ("", None, 5, ["x"], "a" * 32001, "word " * 6000)]
        cases += [("n", value) for value in (0, 11, -1, 1e99, -1e99, 1.5, "1", True, [1])]
        cases += [("size", value) for value in ("65x64", "64x48", "48x64", "0x64", "-64x64", "64", "x", "", 64, "2048x2048",
                                                "99999999999999999999x32", "64x64x64", "64X64\u0000")]
        cases += [("seed", value) for value in (-1, 1.5, "x", 1e99)] + [("temperature", value) for value in (-1, "x", 1e99)]
        cases += [("guidance_scale", value) for value in (-1, "x", 1e99)] + [("image_top_k", value) for value in (-1, 1e99)]
        for field, value in cases:
            with self.subTest(field=field, value=str(value)[:40]):
                error = self.refusal({"prompt": "x", "size": "64x64", "n": 1, field: value})
                self.assertEqual(error["param"], field)
                self.assertTrue(error["message"])

    def test_bodies(self):
        for body, word in ((b"", "the body is empty, expected a JSON object"), (b"{", "JSON"), (b'{"a": [' + b"{}," * 300000 + b"{}]}", "values, expected at most"),
                           (b"\xef\xbb\xbf{}", "JSON"), (SMALL + b"x", "JSON"), (b'{"prompt": "x", "\\u0000": 1}', "JSON"), (b'{"prompt": "x", "": 1}', "unknown field"),
                           (b'{"prompt": "x", "seed": 18446744073709551616}', "too big integer"), (b"null", "JSON"), (b'{"prompt": ' * 5000, "JSON"), (b"[]", "object"), (b'{"prompt": "a\xff"}', "JSON"), (b"[" * 100000, "JSON"),
                           (b'{"prompt": "x", "n": 1e999}', "JSON"), (b'{"prompt": "\\ud800"}', "JSON"),
                           (b'{"prompt": "x", "prompt": "y"}', "prompt")):
            with self.subTest(body[:30]):
                self.assertIn(word, self.refusal(body)["message"])
        self.refusal(json.dumps({"prompt": "a" * 1000000}).encode())
        self.refusal(json.dumps({"prompt": "a" * (1 << 20)}).encode(), status=413)
        self.assertLess(peak_bytes(self.daemon.process.pid), DAEMON_BYTES_MAX)

    def test_bodies_of_other_kinds(self):
        """A form is no JSON; chunks and 100-continue are how some clients send."""
        form = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--b--\r\n'
        for head, body, status in ((b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n" % len(form), form, b"400"),
                                   (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMALL), SMALL), b"200"),
                                   (b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(SMALL), SMALL, b"100")):
            with self.subTest(head):
                answer = exchange(self.daemon, HEAD + head + b"Connection: close\r\n\r\n" + body)
                self.assertEqual(answer.split(b" ")[1], status, answer[:300])

    def test_lengths_that_lie(self):
        """What two readers could read in two ways is refused; what is too large is, too, before it is sent."""
        for head, status, code in ((b"Content-Length: 5\r\nContent-Length: 43\r\n", b"400", b"invalid_header"),
                                   (b"Content-Length: 43\r\nTransfer-Encoding: chunked\r\n", b"400", b"invalid_header"),
                                   (b"Transfer-Encoding: gzip\r\n", b"400", b"invalid_header"),
                                   (b"Content-Length: 9223372036854775807\r\n", b"413", b"body_too_large"),
                                   (b"Content-Length: 2000000\r\nExpect: 100-continue\r\n", b"413", b"body_too_large"),
                                   (b"Content-Length: 10\r\nConnection: close\r\n", b"400", b"invalid_json"),
                                   (b"Content-Length: -5\r\n", b"400", b""), (b"Content-Length: many\r\n", b"400", b""),
                                   (b"Content-Length: 99999999999999999999999\r\n", b"413", b""),
                                   (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400", b"")):
            with self.subTest(head):
                answer = exchange(self.daemon, HEAD + head + b"\r\n" + SMALL)
                self.assertEqual(answer.split(b" ")[1], status, answer[:300])
                self.assertIn(code, answer)
        self.assertEqual(self.daemon.get("/health").status, 200)

    def test_floods(self):
        """Headers, paths and questions without end; 300 requests in one piece."""
        line = b"GET /version HTTP/1.1\r\nHost: x\r\n"
        many = b"".join(b"X-%d: y\r\n" % i for i in range(20000))
        for request, statuses in ((line + b"X: " + b"a" * 200000 + b"\r\n\r\n", (b"431", b"400")), (line + many + b"\r\n", (b"431", b"400")),
                                  (b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\n\r\n", (b"414", b"400")), (b"nonsense\r\n\r\n", (b"400", None)),
                                  (b"GET / HTTP/9.9\r\n\r\n", (b"505",))):
            with self.subTest(request[:30]):
                answer = exchange(self.daemon, request)
                self.assertIn(answer.split(b" ")[1] if answer else None, statuses)
        answers = exchange(self.daemon, (line + b"\r\n") * 300 + line + b"Connection: close\r\n\r\n")
        self.assertEqual(answers.count(b"HTTP/1.1 200"), 301)
        both = exchange(self.daemon, HEAD + b"Content-Length: %d\r\n\r\n" % len(SMALL) + SMALL + line + b"Connection: close\r\n\r\n")
        self.assertEqual(both.count(b"HTTP/1.1 200"), 2)
        self.assertTrue(both.endswith(b'"version":"' + json.loads(self.daemon.get("/version").body)["version"].encode() + b'"}'))
        self.assertLess(peak_bytes(self.daemon.process.pid), DAEMON_BYTES_MAX)

    def test_methods(self):
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "A" * 500):
            reply = self.daemon.request(method, "/health")
            self.assertEqual(reply.status, 405, method)
            self.assertEqual(reply.headers["Allow"], "GET")
            self.assertEqual(reply.json()["error"]["code"], "method_not_allowed")

    def test_texts_stay_texts(self):
        for prompt in (CONTROL, "a\0b", "\u202e\U0001f98a", "\\u0000%s%n"):
            reply = self.daemon.generate(prompt=prompt, size="64x64", seed=1, response_format="b64_json")
            self.assertEqual(reply.status, 200, reply.body[:300])
            self.assertEqual(reply.json()["usage"]["output_tokens"], 24)

    def test_paths_and_headers(self):
        for path in ("/v1/files/..%2f..%2fetc%2fpasswd", "/v1/files/" + "a" * 5000, "/%00", "/v1/images/generations/", "//", "/health/../metrics", "/HEALTH",
                     "/v1/files/..", "/v1/models/..", "/%ff%fe", "/a%", "/a%zz", "/<script>", "/v1/models/" + "x" * 2000, "http://other/health"):
            reply = self.daemon.get(path)
            self.assertEqual(reply.status, 404, path)
            self.assertTrue(reply.json()["error"]["message"])
        self.assertEqual(self.daemon.get("/health?a=b&a=c&%00").status, 200)
        reply = self.daemon.request("GET", "/health", headers={"X-Request-Id": "x" * 300})
        self.assertEqual(reply.status, 200)
        self.assertLess(len(reply.headers["X-Request-Id"]), 128)


class SlowTest(unittest.TestCase):
    def test_a_slow_request_is_not_waited_for(self):
        """Neither one that never comes, nor one that comes byte by byte; pictures take their time."""
        with Daemon(MODEL, "--request-wait-s", 2) as daemon:
            host, port = daemon.address.rsplit(":", 1)
            silent, slow = (socket.create_connection((host, int(port)), LIMIT_S) for _ in range(2))
            with silent, slow:
                slow.settimeout(0.05)
                ended = False
                for byte in HEAD + b"X: " + b"a" * 2400:  # at 20 bytes a second far longer than the limit
                    try:
                        slow.send(bytes([byte]))
                        ended = slow.recv(1) == b""
                    except TimeoutError:
                        continue
                    except (BrokenPipeError, ConnectionResetError):
                        ended = True
                    if ended:
                        break
                self.assertTrue(ended)
                self.assertEqual(read_to_end(silent), b"")
            self.assertEqual(daemon.generate(prompt="x", size="192x192", n=10, seed=1).status, 200)
            self.assertIn("no whole request in time", daemon.log_text())


# ---- mgpt and a daemon that lies ----

EVENTS = "text/event-stream"


def completed(value):
    return b"event: image_generation.completed\ndata: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


LIES = [
    ("nothing", 200, EVENTS, b"", "0 of 1 pictures"),
    ("no JSON", 200, EVENTS, completed(b"{"), "no JSON"),
    ("6 million values", 200, EVENTS, completed(b'{"a": [' + b"{}," * 3000000 + b"{}]}"), "expected at most 100000"),
    ("no picture", 200, EVENTS, completed({"picture_index": 0}), "no base64"),
    ("a number as picture", 200, EVENTS, completed({"b64_json": 5, "picture_index": 0}), "no base64"),
    ("no base64", 200, EVENTS, completed({"b64_json": "!!!!", "picture_index": 0}), "no base64"),
    ("bytes that are no picture", 200, EVENTS, completed({"b64_json": "AAAA", "picture_index": 0}), "no PNG, JPEG or WebP"),
    ("a picture nobody asked for", 200, EVENTS, completed({"b64_json": "AAAA", "picture_index": 9}), "picture 9, expected 0 to 0"),
    ("picture -1", 200, EVENTS, completed({"b64_json": "AAAA", "picture_index": -1}), "expected 0 to 0"),
    ("progress of 10^18 tokens", 200, EVENTS, b'event: progress\ndata: {"picture_index": 0, "tokens_done": 1, "tokens_total": 999999999999999999}\n\n', "0 of 1"),
    ("an escape in an error", 200, EVENTS, b'event: error\ndata: {"error": {"message": "\\u001b[31mred\\nline"}}\n\n', "?[31mred?line"),
    ("a page", 500, "text/html", b"<html>", "HTTP status 500"),
    ("another place", 302, "text/html", b"", "HTTP status 302"),
]


class LyingDaemonTest(unittest.TestCase):
    def test_lies(self):
        """mgpt generate ends with exit 1 and leaves no file."""
        class Lie(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(self.server.lie[0])
                self.send_header("Content-Type", self.server.lie[1])
                self.end_headers()
                try:
                    self.wfile.write(self.server.lie[2])
                except OSError:
                    pass  # mgpt has had enough

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lie) as server, tempfile.TemporaryDirectory() as folder:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                for name, *lie, word in LIES:
                    with self.subTest(name):
                        server.lie = lie
                        refused(self, [word], "generate", "x", "--size", "64x64", "--url", f"http://127.0.0.1:{server.server_port}",
                                "-o", os.path.join(folder, "x.png"))
                        self.assertEqual(os.listdir(folder), [])
            finally:
                server.shutdown()
                thread.join()


# ---- who may ask, and what a process that was taken over may still do ----

KEY = "0123456789abcdef-test"


class KeyTest(unittest.TestCase):
    def test_others_need_a_key(self):
        """Loopback is the default; any other address without a key is refused before a worker starts."""
        for address in ("0.0.0.0:0", "[::]:0"):
            refused(self, ["--http " + address, "other machines", "--api-key"], "--model", MODEL, "--http", address, program="mgptd")
        for endpoint in ("tcp://192.0.2.1:9300", "tcp://127.evil.example:9300", "tcp://127.0.0.1:1;192.0.2.1:9300", "udp://127.0.0.1:9300", "x"):
            done = run("mgpt-worker", "--connect", endpoint, "--model", MODEL, limit_s=LIMIT_S)
            self.assertEqual(done.returncode, 1)
            self.assertIn("not on this machine: --key is needed", done.stderr.decode())
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "worker.key")
            for text, mode, word in (("x", 0o644, "chmod 600"), ("public short", 0o600, "40 characters"), ("", 0o600, "lacks one of"),
                                     ("secret " + "a" * 40, 0o600, "lacks one of"), ("nonsense x", 0o600, "unknown word")):
                with open(path, "w") as file:
                    file.write(text)
                os.chmod(path, mode)
                done = run("mgpt-worker", "--connect", "tcp://192.0.2.1:9300", "--model", MODEL, "--key", path, limit_s=LIMIT_S)
                self.assertEqual(done.returncode, 1)
                self.assertIn(path, done.stderr.decode())
                self.assertIn(word, done.stderr.decode())
                os.unlink(path)
            path = os.path.join(folder, "key")
            for text, mode, word in ((KEY, 0o644, "chmod 600"), ("short", 0o600, "16 to 256"), ("", 0o600, "16 to 256")):
                with open(path, "w") as file:
                    file.write(text)
                os.chmod(path, mode)
                refused(self, [path, word], "--model", MODEL, "--http", "127.0.0.1:0", "--api-key", path, program="mgptd")
                os.unlink(path)

    def test_requests_with_and_without_the_key(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(KEY + "\n")
            with Daemon(MODEL, "--api-key", path, "--http", "0.0.0.0:0") as daemon:
                daemon.address = daemon.address.replace("0.0.0.0", "127.0.0.1")
                body = {"prompt": "x", "size": "64x64", "seed": 1}
                for value in (None, "Bearer", "Bearer ", "Bearer " + KEY[:-1], "Bearer " + KEY + "x", "Bearer  " + KEY, "Bearer " + KEY.upper(), "Basic " + KEY, KEY,
                              "Bearer " + "x" * 5000):
                    reply = daemon.request("POST", "/v1/images/generations", body, {"Authorization": value} if value else None)
                    self.assertEqual(reply.status, 401, value)
                    self.assertEqual(reply.json()["error"]["code"], "invalid_api_key")
                    for closed in ("/metrics", "/version", "/v1/models", "/nowhere", "/v1/models?key=" + KEY):
                        self.assertEqual(daemon.get(closed).status, 401, closed)
                self.assertEqual(daemon.get("/health").status, 200)
                reply = daemon.request("POST", "/v1/images/generations", body, {"Authorization": "Bearer " + KEY})
                self.assertEqual(reply.status, 200, reply.body[:300])
                out = os.path.join(folder, "x.png")
                done = run("mgpt", "generate", "x", "--url", "http://" + daemon.address, "--size", "64x64", "-o", out, env={"MGPT_API_KEY": KEY})
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn(KEY, daemon.log_text())


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


class ConfinedTest(unittest.TestCase):
    def test_daemon_and_workers_are_confined_unless_told(self):
        """What the filter refuses: base/confine_test.c. Here: that each process, the picture worker too, has it, and loses its privileges."""
        read_files, low_ports = 0b110, 1 << 10
        for options, mode in (((), "2"), (("--no-confine",), "0")):
            with Daemon(MODEL, "--stages", 2, *options) as daemon:
                if "not confined" in daemon.log_text():
                    self.skipTest("no seccomp here, or a build with a sanitizer")
                workers = daemon.children()
                self.assertEqual(len(workers), 3)
                for pid, kept in [(daemon.process.pid, read_files | low_ports)] + [(pid, read_files) for pid in workers]:
                    status = status_of(pid)
                    self.assertEqual(status["Seccomp"], mode)
                    if mode == "2":
                        for name in ("CapEff", "CapPrm", "CapInh"):
                            self.assertEqual(int(status[name], 16) & ~kept, 0, name)
                        self.assertEqual(status["NoNewPrivs"], "1")
                self.assertEqual(daemon.generate(prompt="x", size="64x64", seed=1).status, 200)


if __name__ == "__main__":
    unittest.main()
