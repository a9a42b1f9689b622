"""The table of a run: medians, and ratios of ours to the best PyTorch mode in the same precision."""
from statistics import median


def figure(peer, field):
    """The median of a figure over a peer's repetitions; None where a step lacks it."""
    values = [step.get(field) for step in peer.steps]
    return None if None in values else median(values)


def best(peers, precision, of):
    """PyTorch's smallest figure in a precision; None if it was not run there."""
    precisions = {peer.precision for peer in peers if not peer.ours}
    if precision == "bf16-master" and precision not in precisions:
        precision = "bf16"
    return min((of(peer) for peer in peers if not peer.ours and peer.precision == precision and of(peer)),
               default=None)


def seconds(peer):
    """Median duration of a step."""
    return figure(peer, "seconds")


def peak(peer):
    """Peak resident memory in bytes."""
    return peer.memory.get("peak_bytes")


def extra(peer):
    """Memory beside inputs and gradients in bytes, where a peer reports it."""
    return peer.memory.get("extra_bytes")


def cell(value, scale=1.0, digits=0):
    """A number, or a dash."""
    return "–" if value is None else f"{value * scale:.{digits}f}"


def against(ours, theirs, inverse=False):
    """`ours / theirs`, or the inverse, as a cell."""
    if not ours or not theirs:
        return "–"
    return f"{theirs / ours if inverse else ours / theirs:.2f}"


def markdown(peers, tokens):
    """The table; `tokens` of a step, or None for the cross-entropy, which has memory beside instead."""
    first = "step ms" if tokens is None else "tokens/s"
    last = ["MB beside"] if tokens is None else []
    head = ["peer", first, "forward ms", "backward ms", "optimizer ms", "peak GB", "runtime GB", *last,
            "speed ratio", "memory ratio"]
    errors = [field for field in ("dx_error", "dw_error") if any(field in peer.memory for peer in peers)]
    head += [f"{field[:2]} error" for field in errors]
    if tokens is None:
        head.remove("optimizer ms")
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for peer in peers:
        time = seconds(peer)
        row = [peer.name, cell(time, 1e3) if tokens is None else f"{tokens / time:.1f}"]
        parts = ("forward", "backward") if tokens is None else ("forward", "backward", "optimizer")
        row += [cell(figure(peer, part), 1e3) for part in parts]
        row += [cell(peak(peer), 1e-9, 2), cell(peer.memory.get("runtime_bytes"), 1e-9, 2)]
        if tokens is None:
            row.append(cell(extra(peer), 1e-6))
        memory = peak if tokens else extra
        if peer.ours:
            row.append(against(time, best(peers, peer.precision, seconds), inverse=True))
            row.append(against(memory(peer), best(peers, peer.precision, memory)))
        else:
            row += ["", ""]
        found = [peer.memory.get(field) for field in errors]
        row += ["" if error is None else f"{error:.1e}" for error in found]
        lines.append(row)
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    masters = [peer for peer in peers if peer.ours and peer.precision == "bf16-master"]
    notes = [f"{peer.name} against PyTorch's best with everything in bf16: speed "
             f"{against(seconds(peer), best(peers, 'bf16', seconds), inverse=True)}, memory "
             f"{against(peak(peer), best(peers, 'bf16', peak))}" for peer in masters if best(peers, "bf16", seconds)]
    ratio = ("Ratios are of ours to PyTorch's best in the same precision: speed over its fastest mode's, memory over "
             "its leanest mode's.")
    runtime = "Runtime is the part of the peak that was resident before the model was made."
    error = "Errors of gradients are relative, |difference| / |reference|, against ours in f32 with every block computed."
    return "\n\n".join([text, *notes, runtime, *([ratio] if any(peer.ours for peer in peers) else []),
                        *([error] if errors else [])])


def rate(field):
    """The median over a peer's steps of `field` a second."""
    return lambda peer: median(step[field] / step["seconds"] for step in peer.steps)


def mbpp_markdown(peers):
    """The table of steps that differ in their tokens: medians of tokens/s, and ours to each of PyTorch's."""
    theirs = [peer for peer in peers if not peer.ours]
    head = ["peer", "tokens/s", "response tokens/s", "peak GB", "first loss", *(f"to {peer.name}" for peer in theirs)]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for peer in peers:
        row = [peer.name, f"{rate('tokens')(peer):.1f}", f"{rate('response_tokens')(peer):.1f}",
               cell(peak(peer), 1e-9, 2), f"{peer.warm_up['loss']:.4f}"]
        row += [f"{rate('tokens')(peer) / rate('tokens')(other):.2f}" if peer.ours else "" for other in theirs]
        lines.append(row)
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return text + "\n\nTokens are all of prompts and responses, without padding."
