"""One call of the benchmarks: what was asked for, and the machine that it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.bench.contest import Contender, run
from vitbench.bench.report import Report
from vitbench.config import Precision
from vitbench.errors import UserError

# The paper gives no batch size; 16 is where its claim about learning rates holds (README), and 128
# is what a GPU is commonly given.
_BATCH_SIZES = {"cpu": (16,), "cuda": (16, 128)}
# Images of one turn, so that a turn takes seconds: a core trains about 100 of them a second.
_IMAGES = {("cpu", False): 512, ("cpu", True): 64, ("cuda", False): 49_920, ("cuda", True): 9_984}


@dataclass(frozen=True)
class Session:
    """What to measure, where; None leaves a size to the benchmark.

    Attributes:
        device: cpu or cuda.
        hardware: the machine in words.
        environment: of the machine, with the versions of the libraries compared.
        on_progress: gets one short line per turn.
        quick: less work per round, fewer sides.
        rounds: that count.
        threads: of the CPU, for each side.
        only: words of which a side's name must have one; empty for all sides.
        batch_size: of every model.
        images: of one turn, summed over members.
        members: stack sizes.
        workers: numbers of processes that share one model.
        precision: of a profiled step.
    """

    device: str
    hardware: str
    environment: Mapping[str, Any]
    on_progress: Callable[[str], None]
    quick: bool
    rounds: int
    threads: int
    only: Sequence[str]
    batch_size: Sequence[int] | None
    images: int | None
    members: Sequence[int] | None
    workers: Sequence[int] | None
    precision: Precision

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Those asked for, or those that the device is commonly given."""
        return self.batch_size or _BATCH_SIZES[self.device]

    def images_of_turn(self, batch_size: int) -> int:
        """Training images of one turn, in whole batches."""
        return whole_batches(self.images or _IMAGES[self.device, self.quick], batch_size)

    def compete(
        self,
        contenders: Sequence[Contender],
        *,
        benchmark: str,
        title: str,
        settings: Mapping[str, Any],
        reference: str,
        unit: str = "images/s",
        higher_is_better: bool = True,
        ours: str = "vitbench",
        warmup: int = 1,
    ) -> Report:
        """Let the contenders that were asked for take turns.

        Args:
            contenders: everyone in the order of the table.
            benchmark, title, settings, unit, higher_is_better: see `Report`.
            reference: whom ratios refer to; the first contender where it does not take part.
            ours: how the names of vitbench's own sides begin.
            warmup: turns that are not counted.

        Raises:
            UserError: if `only` has a word that names nobody.
        """
        chosen = choose(contenders, self.only)
        names = [contender.name for contender in chosen]
        return Report(
            benchmark=benchmark,
            title=title,
            hardware=self.hardware,
            unit=unit,
            higher_is_better=higher_is_better,
            reference=reference if reference in names else names[0],
            settings=settings,
            environment=self.environment,
            rows=run(chosen, rounds=self.rounds, warmup=warmup, on_progress=self.on_progress),
            ours=frozenset(name for name in names if name.startswith(ours)),
        )


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
