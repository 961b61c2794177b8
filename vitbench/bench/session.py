"""One call of the benchmarks: what was asked for, and the machine that it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.bench.contest import Contender, Row, run
from vitbench.config import Precision
from vitbench.errors import UserError

# The paper gives no batch size; 16 is where its claim about learning rates holds (README), and 128
# is what a GPU is commonly given.
_BATCH_SIZES = {"cpu": (16,), "cuda": (16, 128)}
# Images of one turn, so that a turn takes seconds: a core trains about 100 of them a second.
_IMAGES = {("cpu", False): 512, ("cpu", True): 64, ("cuda", False): 49_920, ("cuda", True): 9_984}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What to measure, where: the options of the command line, see its `--help`.

    None leaves a size to the benchmark.
    """

    device: str
    hardware: str  # in words
    environment: Mapping[str, Any]
    on_progress: Callable[[str], None]  # gets one short line per turn
    quick: bool = False
    rounds: int = 5
    threads: int = 1
    only: Sequence[str] = ()
    batch_size: Sequence[int] | None = None
    images: int | None = None
    members: Sequence[int] | None = None
    workers: Sequence[int] | None = None
    trials: Sequence[int] | None = None
    precision: Precision = "auto"
    fraction: float | None = None
    compile: bool = False
    peak_tflops: float | None = None

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Those asked for, or those that the device is commonly given."""
        return self.batch_size or _BATCH_SIZES[self.device]

    def images_of_turn(self, batch_size: int) -> int:
        """Training images of one turn, in whole batches."""
        return whole_batches(self.images or _IMAGES[self.device, self.quick], batch_size)

    def compete(self, contenders: Sequence[Contender], warmup: int = 1) -> list[Row]:
        """Let the contenders that were asked for take turns; see `contest.run`."""
        chosen = choose(contenders, self.only)
        return run(chosen, rounds=self.rounds, warmup=warmup, on_progress=self.on_progress)


def whole_batches(images: int, batch_size: int) -> int:
    """Round down to whole batches, two at least."""
    return max(2, images // batch_size) * batch_size


def choose(everyone: Sequence[Contender], only: Sequence[str]) -> list[Contender]:
    """Those whose names contain one of the words; all where none is given.

    Raises:
        UserError: a word that names nobody.
    """
    for word in only:
        if not any(word in contender.name for contender in everyone):
            names = ", ".join(contender.name for contender in everyone)
            raise UserError(f"--only {word}: no contender is called so; there are: {names}.")
    return [c for c in everyone if not only or any(word in c.name for word in only)]
