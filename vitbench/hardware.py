"""What this machine has, read without importing torch or ray."""

from __future__ import annotations

import contextlib
import math
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
    capabilities = _asked_of_gpus("compute_cap")
    if not capabilities:
        return "nvidia-smi does not tell the GPU's compute capability"
    lowest = min(capabilities)
    return "" if lowest >= 8 else f"a GPU of compute capability {lowest:g}"


def memory_gib(*, on_gpu: bool) -> float:
    """Memory of the largest GPU, or of this machine or container; inf where nothing tells."""
    if on_gpu:
        return max((mib / 1024 for mib in _asked_of_gpus("memory.total")), default=math.inf)
    told = [math.inf]
    with contextlib.suppress(OSError, ValueError):
        told.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # `max` where the container has no limit
        told.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(told) / 2**30


def _asked_of_gpus(what: str) -> list[float]:
    """What nvidia-smi says of each GPU; nothing where it does not."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return [float(line) for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
