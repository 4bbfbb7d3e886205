"""One mgptd for a test: started on a free port, spoken to over HTTP, ended by its process id."""
import base64
import http.client
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

from harness import BIN

START_LIMIT_S = 120
STOP_LIMIT_S = 60
REPLY_LIMIT_S = 240
WAIT_LIMIT_S = 60  # for a state that must come; only a failure meets it


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)


def written(file):
    """The text of a file that a child writes: read without the place in it, which both share."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


class Daemon:
    """with Daemon(model, "--stages", 2) as daemon: ..."""

    def __init__(self, model, *options):
        self.options = ["--model", model, "--http", "127.0.0.1:0", *map(str, options)]

    def __enter__(self):
        self.start()
        return self.wait_ready()

    def start(self):
        """Without waiting for workers: where it listens is in its log."""
        self.log = tempfile.TemporaryFile("a+b")  # who reads it moves no writer
        self.process = subprocess.Popen([os.path.join(BIN, "mgptd"), *self.options], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log)
        return self

    def wait_ready(self):
        timer = threading.Timer(START_LIMIT_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()  # printed once every worker is loaded
        timer.cancel()
        if not line:
            self.process.wait()
            raise AssertionError(f"mgptd did not start: {self.log_text()[-2000:]}")
        self.address = json.loads(line)["http"].removeprefix("http://")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.process.stdout.close()
        self.log.close()

    def log_text(self):
        return written(self.log)

    def connection(self):
        return http.client.HTTPConnection(self.address, timeout=REPLY_LIMIT_S)

    def request(self, method, path, value=None, headers=None):
        """One request on a connection of its own. value: bytes as they are, anything else as JSON."""
        connection = self.connection()
        try:
            body = value if value is None or isinstance(value, bytes) else json.dumps(value)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def get(self, path):
        return self.request("GET", path)

    def generate(self, **fields):
        return self.request("POST", "/v1/images/generations", fields)

    def picture(self, **fields):
        """One picture as the bytes of its file; the request must succeed."""
        reply = self.generate(response_format="b64_json", **fields)
        if reply.status != 200:
            raise AssertionError(f"{reply.status}: {reply.body[:500]}")
        return base64.b64decode(reply.json()["data"][0]["b64_json"])

    def metrics(self):
        """Plain samples of /metrics by name with labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and line[0] != "#"}

    def gauge(self, name):
        """The sum over all labels of one metric."""
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)

    def children(self):
        """Process ids of the workers, by /proc."""
        return children_of(self.process.pid)


def children_of(parent):
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        direct = [int(pid) for pid in file.read().split()]
    for task in os.listdir(f"/proc/{parent}/task"):
        try:
            with open(f"/proc/{parent}/task/{task}/children") as file:
                direct += [int(pid) for pid in file.read().split() if int(pid) not in direct]
        except FileNotFoundError:
            pass  # the thread of a connection that ended meanwhile
    return direct


def wait_for(test, what, condition):
    """Polls until condition() holds: for states that can only be asked for, never told."""
    end = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        test.assertLess(time.monotonic(), end, f"waited in vain for {what}")
        time.sleep(0.02)


def wait_for_an_empty_cache(test, daemon):
    """A stage tells what it holds with its next result, which may come after the answer to the last request."""
    wait_for(test, "an empty cache", lambda: daemon.gauge("mgpt:kv_cache_usage_perc") == 0)


def in_parallel(calls):
    """Runs the calls at once, each in a thread; returns their results in order, or raises the first failure."""
    results, failures = [None] * len(calls), []

    def work(index, call):
        try:
            results[index] = call()
        except BaseException as failure:  # told to the test below
            failures.append(failure)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
