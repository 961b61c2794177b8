"""benchmarks/gpu.sh runs every test that wants a GPU, on machines that lack Ray and Optuna."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_all_tests_of_a_gpu_are_collected_without_ray() -> None:
    """A module that imports Ray would end the whole run there. None is forgotten."""
    script = (ROOT / "benchmarks" / "gpu.sh").read_text(encoding="utf-8")
    (asked,) = re.findall(r"what=\((-m gpu [^)]*)\)", script)
    code = (
        "import sys, pytest; sys.modules.update(dict.fromkeys(['ray', 'optuna']));"
        "raise SystemExit(pytest.main(sys.argv[1:]))"
    )
    words = [*asked.split(), "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "\n@pytest.mark.gpu\n" in path.read_text(encoding="utf-8")
    }
    assert collected == marked
