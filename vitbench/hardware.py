"""What this machine has, read without importing torch or ray."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

# Training allocates and frees the same large tensors every step. With glibc's defaults each of them
# is mapped and unmapped by the kernel; kept in the heap, wide stacks train up to 1.4 times as fast.
# glibc reads these when a process starts, so they are set before worker processes start.
ALLOCATOR_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
}


def local_gpu_count() -> int:
    """Count the NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return len([p for p in Path("/dev").glob("nvidia*") if p.name[len("nvidia") :].isdigit()])


def cpu_count() -> int:
    """Count the cores that this process may use (a container's share, not the host's)."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """The processor's name for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 matrices in tiles (Intel AMX): then it is fast."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    return re.search(r"^flags\s*:.*\bamx_bf16\b", cpuinfo, re.MULTILINE) is not None


def slow_in_bfloat16(*, on_gpu: bool) -> str:
    """Why this machine multiplies bfloat16 matrices slowly; empty where it is fast in them.

    GPUs have instructions for them from compute capability 8 on; a processor needs AMX, without
    which bfloat16 is many times slower than float32.
    """
    if not on_gpu:
        return "" if has_amx() else "no AMX"
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        lowest = min(float(line) for line in done.stdout.splitlines())
    except (OSError, subprocess.SubprocessError, ValueError):
        return "nvidia-smi does not tell the GPU's compute capability"
    return "" if lowest >= 8 else f"a GPU of compute capability {lowest:g}"
