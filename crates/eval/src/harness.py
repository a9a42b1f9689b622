"""Runs a candidate, then its checks in the same interpreter, and ends its output with a proof and the verdict.

Standard input: one line with the byte lengths of the parts, then the parts: `proof`, how the candidate is checked,
the candidate, and what that takes: for `asserts` the checks; for `calls DATASET FUNCTION TOLERANCE` the inputs and
what the reference returned for them (calls.py). `proof` shows that the checks ran to their end: it leaves standard
input before the candidate starts, and half of it goes into a pipe, so that neither looking through the interpreter's
objects nor reading every descriptor finds all of it.

A candidate that wants to can still find or change anything here, as in any interpreter that it shares with its checks:
what a pass is worth, a second interpreter decides (verify/).
"""
import _functools
import _thread
import builtins
import os
import sys
import time
import types

# The functions below keep their own table of builtins: the candidate may replace any of the other.
__builtins__ = vars(builtins).copy()


def receive():
    """The parts, taken from standard input, which is /dev/null afterwards."""
    blocks = []
    while block := os.read(0, 1 << 16):
        blocks.append(block)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    lengths, _, rest = b"".join(blocks).partition(b"\n")
    parts, start = [], 0
    for length in map(int, lengths.split()):
        parts.append(rest[start:start + length])
        start += length
    return parts


def put_away(proof):
    """The first half of the proof, and a descriptor from which the second can be read once."""
    half = len(proof) // 2
    source, sink = os.pipe()
    os.write(sink, proof[half:])
    os.close(sink)
    return proof[:half], source


def attempt(run, program, steps, space, outcome, ended):
    """Runs all of it in a thread of its own, so that no frame above the candidate's is the harness's:
    a signal's handler, which only the main thread can install, would be handed such a frame."""
    checking = False
    try:
        run(program, space)
        checking = True
        for step in steps:
            step(space)
        verdict = "passed"
    except Late:
        verdict = "timeout"
    except AssertionError:
        verdict = "wrong" if checking else "error AssertionError"
    except BaseException as error:
        name = type(error).__name__
        named = type(name) is str and len(name) <= 100 and name.isidentifier()
        verdict = "error " + (name if named else "exception")
    outcome.append(verdict)
    ended.release()


def until(ended, clock, now):
    """Waits for the end of the attempt; False if a call has run over its time, which `clock` has."""
    while not ended.acquire(True, 0.05 if clock[0] is None else max(clock[0] - now(), 0.001)):
        late = clock[0]
        if late is not None and now() > late:
            return False
    return True


def judge():
    # The candidate may replace what these names stand for; what is used after it, is taken before.
    read, write, leave, now = os.read, os.write, os._exit, time.monotonic
    parts = receive()
    front, source = put_away(parts.pop(0))
    kind, *how = parts.pop(0).decode().split(" ")
    code = parts.pop(0).decode()
    checks = []
    if kind == "asserts":
        checks = [compile(part.decode(), "check.py", "exec", dont_inherit=True) for part in parts]
    else:
        quiet()
    # Not `__main__`, as in other evaluators: what is only for a run as a script does not run.
    main = sys.modules["candidate"] = types.ModuleType("candidate")
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["main.py"]
    space = main.__dict__
    space["__builtins__"] = builtins
    clock = [None]
    if kind == "asserts":
        steps = [_functools.partial(exec, check) for check in checks]
    else:
        dataset, function, tolerance = how
        steps = [calling(dataset, function, float(tolerance), parts[0], clock, 1.0)]
    del parts
    outcome = []
    try:
        # A backslash at the very end would join nothing.
        program = compile(code + "\n\n", "main.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        outcome.append("syntax")
    else:
        ended = _thread.allocate_lock()
        ended.acquire()
        work = (exec, program, steps, space, outcome, ended)
        _thread.stack_size(8 << 20)
        try:
            _thread.start_new_thread(attempt, work)
        except RuntimeError:  # no thread to be had
            attempt(*work)
        del work
        try:
            if kind == "asserts":
                ended.acquire()
            elif not until(ended, clock, now):
                outcome[:] = ["timeout"]
        except BaseException:
            outcome[:] = ["error KeyboardInterrupt"]
    verdict = outcome[0]
    # No buffers flushed, no exit handlers, no waiting for threads: nothing comes after this line.
    write(1, b"\n%s%s %s\n" % (front, read(source, 64), verdict.encode()))
    leave(0 if verdict == "passed" else 1)
