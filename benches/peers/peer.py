"""Peers as processes: starting one, asking it, ending it; and a virtual environment for the PyTorch ones."""
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# The plain index's torch for Linux brings CUDA along; this one is for CPUs only.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class PeerError(Exception):
    """The one sentence that says which peer failed, and how."""


class Peer:
    """A process that speaks the line protocol (see protocol.py)."""

    def __init__(self, name, precision, ours, command):
        self.name, self.precision, self.ours, self.command = name, precision, ours, [str(part) for part in command]
        self.process, self.errors = None, None
        self.about = {}  # what it says when it is ready
        self.warm_up, self.steps, self.memory = None, [], {}

    def start(self, threads, timeout):
        """Starts the process and waits until it has loaded."""
        self.timeout = timeout
        self.errors = tempfile.TemporaryFile()
        environment = os.environ | {name: str(threads) for name in (
            "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}
        try:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                env=environment)
        except OSError as error:
            raise PeerError(f"{self.name} does not start: {error}") from error
        self.about = self.read()
        if self.about.get("ready") is not True:
            raise PeerError(f"{self.name} did not begin with {{\"ready\": true}}")

    def ask(self, request):
        """One request, one reply."""
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise PeerError(f"{self.name} has ended: {self.last_words()}") from error
        return self.read()

    def read(self):
        """The next line, a JSON object; the process is killed if it takes longer than the time-out."""
        late = threading.Event()
        timer = threading.Timer(self.timeout, lambda: (late.set(), self.process.kill()))
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            what = f"took over {self.timeout:g} s and was stopped" if late.is_set() else "ended"
            raise PeerError(f"{self.name} {what}: {self.last_words()}")
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise PeerError(f"{self.name} printed {line.strip()!r}, which is not JSON") from error
        if not isinstance(reply, dict):
            raise PeerError(f"{self.name} printed {line.strip()!r}, which is not a JSON object")
        return reply

    def step(self):
        """One step's figures."""
        reply = self.ask("step")
        if not all(isinstance(reply.get(field), (int, float)) for field in ("loss", "seconds")):
            raise PeerError(f"{self.name} gave a step without loss or seconds: {reply}")
        return reply

    def last_words(self):
        """The last line of its standard error."""
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}, nothing on standard error"

    def stop(self):
        """Asks it to quit, and kills it if it does not."""
        if self.process is None:
            return
        try:
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
            self.process.wait(timeout=20)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        self.process = None


def make_venv():
    """The interpreter of a virtual environment with requirements.txt, made on first use under target/."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    venv, wanted = target / "peers-venv", HERE / "requirements.txt"
    python, mark = venv / "bin" / "python", venv / "installed.txt"
    # The copy of the requirements is written last, so it marks a complete installation.
    if mark.exists() and filecmp.cmp(wanted, mark, shallow=False):
        return python
    say(f"making {venv} (torch, some minutes)")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in wanted.read_text(encoding="utf-8").splitlines() if line.startswith("torch"))
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        # Only torch itself comes from the CPU index; where that is out of reach the plain one serves.
        cpu = subprocess.run([*pip, "--no-deps", "--index-url", CPU_INDEX, torch], stderr=subprocess.DEVNULL)
        if cpu.returncode != 0:
            say(f"no {torch} at {CPU_INDEX}; taking the plain index's")
        subprocess.run([*pip, "-r", wanted], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(f"cannot install {wanted} in {venv}: {error}") from error
    shutil.copy(wanted, mark)
    return python


def say(message):
    """Progress, on standard error."""
    print(f"bench-peers: {message}", file=sys.stderr, flush=True)
