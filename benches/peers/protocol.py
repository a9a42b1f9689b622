"""The line protocol of a peer: `step`, `peak` and `quit` on standard input, JSON on standard output."""
import json
import sys


def status_bytes(field):
    """A figure of /proc/self/status in bytes (VmHWM is the peak, VmRSS the present); None where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def reset_peak():
    """Makes VmHWM start again at the present VmRSS, where the system allows it."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")
    except OSError:
        pass


def say(**fields):
    """One JSON line."""
    print(json.dumps(fields), flush=True)


def serve(step, runtime, peak=dict):
    """Answers requests until `quit` or the end of input.

    `step()` does one step and returns its figures; `peak()` returns what to add to the peak memory.
    `runtime` is the resident memory before the model was made: PyTorch's own code and data.
    """
    say(ready=True)
    for line in sys.stdin:
        request = line.strip()
        if request == "step":
            say(**step())
        elif request == "peak":
            say(**{"peak_bytes": status_bytes("VmHWM"), "runtime_bytes": runtime, **peak()})
        elif request == "quit":
            return
        else:
            sys.exit(f"unknown request {request!r}: step, peak and quit are known")
