"""Goal: whatever strangers send to the port for workers of other machines, in any number, who is in draws on undisturbed, newcomers with a key
get in afterwards, and descriptors and memory stay within bounds.
"""
import contextlib
import os
import random
import socket
import struct
import tempfile
import unittest

from daemon_process import wait_for
from hostile import LIMIT_S, MODEL
from remote_machines import Network, RemoteDaemon, Worker, make_keys
from test_faults import Running
from test_hostile_http import DAEMON_BYTES_MAX, peak_bytes

CONNECTIONS_MAX = 1 + 64  # one for each place and the spare ones, as in daemon/remote.h
SEED = 3


def greeting(mechanism, as_server=0):
    """ZMTP 3.1's first 64 bytes."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def command(name, body):
    text = bytes([len(name)]) + name + body
    return b"\x04" + bytes([len(text)]) + text


def strangers():
    """(what, bytes): each is the whole talk of one connection."""
    noise = random.Random(SEED)
    yield "nothing", b""
    yield "noise", noise.randbytes(4096)
    yield "HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "half a greeting", greeting(b"CURVE")[:40]
    yield "no security", greeting(b"NULL") + command(b"READY", b"\x0bSocket-Type\0\0\0\x06DEALER")
    yield "a password", greeting(b"PLAIN") + command(b"HELLO", b"\x01a\x01b")
    yield "an unknown mechanism", greeting(b"X" * 20)
    yield "a second server", greeting(b"CURVE", 1)
    yield "a CURVE hello of noise", greeting(b"CURVE") + command(b"HELLO", noise.randbytes(194))
    yield "a short CURVE hello", greeting(b"CURVE") + command(b"HELLO", b"\x01\0")
    yield "a CURVE initiate without a hello", greeting(b"CURVE") + command(b"INITIATE", noise.randbytes(200))
    yield "a message before the handshake", greeting(b"CURVE") + b"\x00\x10" + noise.randbytes(16)
    yield "a frame of 2^63 bytes", greeting(b"CURVE") + b"\x06" + struct.pack(">Q", 1 << 63)
    yield "a frame of 1 GB", greeting(b"CURVE") + b"\x06" + struct.pack(">Q", 1 << 30) + bytes(1 << 20)
    yield "an old version", b"\xff" + bytes(8) + b"\x7f\x01\x05"


def n_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class StrangersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.network = Network().__enter__()
        cls.addClassCleanup(cls.network.__exit__)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.key, cls.keys = make_keys(os.path.join(folder.name, "keys"), 2)

    def setUp(self):
        self.daemon = RemoteDaemon(self, self.network, MODEL, self.key, "--stages", 2, "--remote-stages", "1").__enter__()
        self.addCleanup(self.daemon.__exit__)
        self.worker = Worker(self, self.network, self.daemon.port, "--model", MODEL, "--key", self.keys[0])
        self.daemon.wait_ready()

    def connect(self):
        return socket.create_connection((self.network.here, self.daemon.port), LIMIT_S)

    def unharmed(self, running):
        for reply in running.end():
            self.assertEqual(reply.status, 200, reply.body[:300])
        self.assertEqual(self.daemon.gauge("mgpt:worker_restarts_total"), 0)
        self.assertEqual(self.worker.log_text().count("connected endpoint="), 1)
        self.assertLess(peak_bytes(self.daemon.process.pid), DAEMON_BYTES_MAX)
        other = Worker(self, self.network, self.daemon.port, "--model", MODEL, "--key", self.keys[1])
        wait_for(self, "a newcomer with a key", lambda: self.daemon.gauge("mgpt:remote_workers_spare") == 1)
        other.kill()

    def test_what_strangers_say(self):
        running = Running(self.daemon, 2)
        for what, talk in strangers():
            with self.subTest(what), self.connect() as stranger:
                with contextlib.suppress(ConnectionError):
                    stranger.sendall(talk)
                    answer = b" "
                    while answer:  # until the daemon ends it: at once, or when its time for the handshake is over
                        answer = stranger.recv(1 << 16)
                        self.assertNotIn(b"MGPT", answer)
        self.unharmed(running)
        self.assertIn("no CURVE handshake", self.daemon.log_text())

    def test_a_flood_of_connections(self):
        """Those beyond the limit are cut off, so the number of descriptors falls back to it while they keep coming."""
        pid, flood, before = self.daemon.process.pid, [], n_descriptors(self.daemon.process.pid)

        def come():
            stranger = socket.socket()
            flood.append(stranger)
            stranger.setblocking(False)
            stranger.connect_ex((self.network.here, self.daemon.port))
        running = Running(self.daemon, 2)
        try:
            for _ in range(6 * CONNECTIONS_MAX):
                come()
            wait_for(self, "a full house", lambda: "are open" in self.daemon.log_text())
            for _ in range(50):
                come()
                wait_for(self, "descriptors", lambda: n_descriptors(pid) < before + CONNECTIONS_MAX + 20)  # HTTP takes some of its own
            self.assertEqual(self.daemon.get("/health/ready").status, 200)
        finally:
            for stranger in flood:
                stranger.close()
        self.unharmed(running)


if __name__ == "__main__":
    unittest.main()
