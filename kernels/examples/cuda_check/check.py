#!/usr/bin/env python3
"""Compiles the CUDA C++ that the program beside it wrote with NVRTC and ptxas; needs no GPU.

    cuda_check SOURCES
    python3 check.py NVIDIA SOURCES

which run.sh beside this file does, having built and installed what is needed.

NVIDIA is a folder that holds `libnvrtc.so.*`, `cuda_fp16.h`, `cuda_bf16.h` and `ptxas` somewhere below it: the
site-packages/nvidia folder after `pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12`,
or a CUDA toolkit. `--ptxas FILE` names another ptxas.

Prints a Markdown table of registers a thread, shared memory a cube and spills, and fails if a kernel does not
compile or spills, or if a line of the table is not in the file that `--documented` names. `.` are kernels that do
not reduce within a cube.
"""
import argparse
import ctypes
import pathlib
import re
import subprocess
import sys


def find(folder, pattern):
    found = sorted(p for p in pathlib.Path(folder).rglob(pattern) if "builtins" not in p.name and p.is_file())
    if not found:
        sys.exit(f"no {pattern} below {folder}")
    return found[0]


class Nvrtc:
    """The few functions of NVRTC that turn a source into PTX."""

    def __init__(self, library, include):
        for builtins in library.parent.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(library))
        self.include = include

    def text(self, program, size_of, get):
        size = ctypes.c_size_t()
        getattr(self.library, size_of)(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.library, get)(program, buffer)
        return buffer.raw.rstrip(b"\0").decode()

    def ptx(self, source, arch):
        """PTX and None, or None and the compiler's log."""
        program = ctypes.c_void_p()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None)
        options = [f"--gpu-architecture=compute_{arch}", f"--include-path={self.include}"]
        pointers = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = self.library.nvrtcCompileProgram(program, len(options), pointers)
        if failed:
            return None, self.text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
        return self.text(program, "nvrtcGetPTXSize", "nvrtcGetPTX"), None


def assemble(ptxas, path, arch):
    """Registers, static shared memory and spilled bytes as ptxas reports them, and its whole report."""
    command = [str(ptxas), "-v", f"-arch=sm_{arch}", str(path), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    report = done.stdout + done.stderr
    if done.returncode:
        return None, report

    def number(pattern):
        return sum(int(value) for value in re.findall(pattern, report))

    spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    return (number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), spills), report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nvidia")
    parser.add_argument("sources", type=pathlib.Path)
    parser.add_argument("--ptxas")
    parser.add_argument("--documented", type=pathlib.Path, metavar="FILE", help="where the table is kept")
    arguments = parser.parse_args()
    include = find(arguments.nvidia, "cuda_bf16.h").parent
    nvrtc = Nvrtc(find(arguments.nvidia, "libnvrtc.so*"), include)
    ptxas = arguments.ptxas or find(arguments.nvidia, "ptxas")
    sources = sorted(arguments.sources.glob("*.cu"))
    bad = 0 if sources else 1
    documented = arguments.documented.read_text().splitlines() if arguments.documented else None
    changed = 0
    print("| kernel | type | reduction | sm | registers | shared memory, bytes | spilled bytes |")
    print("|---|---|---|---|---|---|---|")
    for source in sources:
        kernel, dtype, reduction, sm, _ = source.name.split(".")
        arch = sm.removeprefix("sm")
        text = source.read_text()
        dynamic = int(re.match(r"// shared memory (\d+)", text).group(1))
        ptx, log = nvrtc.ptx(text, arch)
        figures = None
        if ptx is not None:
            path = source.with_suffix(".ptx")
            path.write_text(ptx)
            figures, log = assemble(ptxas, path, arch)
        if figures is None:
            bad += 1
            print(f"{source.name} does not compile:\n{log}", file=sys.stderr)
            continue
        registers, static, spills = figures
        bad += spills > 0
        reduction = reduction.replace("no-reduction", ".")
        line = f"| {kernel} | {dtype} | {reduction} | {arch} | {registers} | {static + dynamic} | {spills} |"
        changed += documented is not None and line not in documented
        print(line)
    print(f"\n{len(sources)} kernels, {bad} that do not compile or that spill.")
    if changed:
        print(f"{changed} lines are not those of {arguments.documented}: put this table there", file=sys.stderr)
    return 1 if bad or changed else 0


if __name__ == "__main__":
    sys.exit(main())
