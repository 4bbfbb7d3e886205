"""Another machine for mgpt-worker --connect: a network namespace joined by a veth pair where the user may make one, else another loopback
address of this machine. WAY says which it is.
"""
import ctypes
import os
import re
import signal
import subprocess
import tempfile

from daemon_process import Daemon, wait_for, written
from harness import BIN, mgpt

NAME = f"mgpt{os.getpid() % 100000}"  # of the namespace, and with a letter behind it of each end of the pair
# A /29 of the addresses for tests of networks: the daemon's machine, and two of the workers', which share the namespace.
HERE, *THERE = (f"198.18.{os.getpid() // 32 % 256}.{os.getpid() % 32 * 8 + n}" for n in (1, 2, 3))
COMMANDS = (f"ip netns add {NAME}", f"ip link add {NAME}a type veth peer name {NAME}b", f"ip link set {NAME}b netns {NAME}",
            f"ip addr add {HERE}/29 dev {NAME}a", f"ip link set {NAME}a up", *(f"ip netns exec {NAME} ip addr add {there}/29 dev {NAME}b" for there in THERE),
            f"ip netns exec {NAME} ip link set lo up", f"ip netns exec {NAME} ip link set {NAME}b up")


def remove_namespace():
    for command in (f"ip link del {NAME}a", f"ip netns del {NAME}"):
        subprocess.run(command.split(), stderr=subprocess.DEVNULL)


def make_namespace():
    try:
        for command in COMMANDS:
            subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return True
    except (FileNotFoundError, subprocess.CalledProcessError):
        remove_namespace()
        return False


class Network:
    """with Network() as network: the machine `here` with the daemon, and two of `there`, each known by its address."""

    def __init__(self, may_be_real=True):
        self.may_be_real = may_be_real

    def __enter__(self):
        self.is_real = self.may_be_real and os.geteuid() == 0 and make_namespace()
        self.here, self.there = (HERE, THERE) if self.is_real else ("127.0.0.1", ["127.0.0.2", "127.0.0.3"])
        self.way = "two network namespaces" if self.is_real else "two loopback addresses"
        print(f"machines: {self.way}, {self.here} and {', '.join(self.there)}", flush=True)
        return self

    def __exit__(self, *_):
        if self.is_real:
            remove_namespace()

    def worker(self, port, machine, *options):
        """The command line of a worker there, which comes from the machine's own address."""
        where = ["ip", "netns", "exec", NAME] if self.is_real else []
        source = "" if self.is_real and machine == 0 else f"{self.there[machine]}:0;"
        return [*where, os.path.join(BIN, "mgpt-worker"), "--connect", f"tcp://{source}{self.here}:{port}", *options]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a test that is ended leaves nothing


class Worker:
    """One mgpt-worker on the other machine, ended by its id."""

    def __init__(self, test, network, port, *options, machine=0):
        self.log = tempfile.TemporaryFile("a+b")
        test.addCleanup(self.end)
        self.process = subprocess.Popen(network.worker(port, machine, *map(str, options)), stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, preexec_fn=die_with_parent)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if not self.log.closed:
            self.log.close()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log_text(self):
        return written(self.log)


class RemoteDaemon(Daemon):
    """A daemon that takes workers from the other machine; starts without waiting for them."""

    def __init__(self, test, network, model, key, *options, port=0):
        super().__init__(model, "--worker-listen", f"{network.here}:{port}", "--worker-key", key, *options)
        self.test = test

    def __enter__(self):
        self.start()
        try:
            self.port = int(self.logged(r"workers may connect endpoint=tcp://\S+:(\d+)"))
            self.address = self.logged(r"listening url=http://(\S+)")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def logged(self, pattern):
        """The first group of a line that its log has or will have."""
        found = []

        def look():
            found[:] = re.findall(pattern, self.log_text())
            if not found and self.process.poll() is not None:
                raise AssertionError(f"mgptd ended: {self.log_text()[-2000:]}")
            return found
        wait_for(self.test, f"'{pattern}' in the log", look)
        return found[0]


def make_keys(folder, workers):
    mgpt("make-keys", "--out", folder, "--workers", workers)
    return os.path.join(folder, "mgptd.key"), [os.path.join(folder, f"worker-{k}.key") for k in range(1, workers + 1)]
