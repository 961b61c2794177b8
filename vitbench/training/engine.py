"""The only training loop: epochs of a stack, its records, its checkpoints.

It is handed everything from outside: plan, images, device, where to report and where to keep
checkpoints. It knows no Ray, no YAML and no file layout.

Shape legend: K members.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from vitbench.config import Evaluation, Precision
from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError
from vitbench.plan import StackPlan
from vitbench.records.types import EpochRow, LabelScore, Status, TrialOutcome
from vitbench.training.checkpoint import CheckpointStore
from vitbench.training.evaluation import Predictions, as_parquet, measure_layers, predict
from vitbench.training.label_scores import label_scores
from vitbench.training.parallel import SOLO, Parallel
from vitbench.training.speedup.compiling import Compiling, When
from vitbench.training.stack import Stack


@dataclass(frozen=True)
class Metrics:
    """Loss in nats and accuracy of one model on each split; NaN where it diverged.

    `train_end` is of fixed training images after the epoch. None is what was not measured.
    """

    train_loss: float = math.nan
    val_loss: float | None = math.nan
    test_loss: float | None = math.nan
    train_accuracy: float = math.nan
    val_accuracy: float | None = math.nan
    test_accuracy: float | None = math.nan
    train_end_loss: float | None = None
    train_end_accuracy: float | None = None


METRICS = tuple(f.name for f in fields(Metrics))
_NOT_EVALUATED = {name: None for name in METRICS if name not in ("train_loss", "train_accuracy")}
# What a checkpoint says of its images.
_IMAGES = ("name", "checksum", "mean", "std", "classes", "labels")


@dataclass(frozen=True)
class EpochReport:
    """One epoch of a stack: a row for each member that trained in it."""

    epoch: int  # from 1
    rows: tuple[EpochRow, ...]
    epoch_s: float
    images_per_s: float  # training images of all members together
    checkpoint: bool = False  # a state follows: these rows must be safe when `report` returns


@dataclass(frozen=True)
class FitResult:
    """How each member of a stack ended; `stopped` if `report` asked to end early."""

    trials: list[TrialOutcome]
    stopped: bool


@dataclass
class Member:
    """What is known of one member, beside its weights; saved with its state."""

    trial_id: str
    last: Metrics = Metrics()
    epochs: int = 0
    best: Metrics | None = None
    best_epoch: int | None = None
    diverged_epoch: int | None = None
    initial_val_loss: float = math.nan
    stopped: bool = False  # out of patience

    @property
    def ended(self) -> bool:
        """Whether it trains no more, whatever its stack does."""
        return self.stopped or self.diverged_epoch is not None

    @property
    def status(self) -> Status:
        """How it ended in a stack that came to its end."""
        if self.diverged_epoch is not None:
            return Status.DIVERGED
        return Status.STOPPED if self.stopped else Status.FINISHED

    def to_json(self) -> dict[str, Any]:
        """For the state's JSON, where a model without a best epoch has an empty one."""
        return {**asdict(self), "best": asdict(self.best) if self.best else {}}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Member:
        """Read what `to_json` gave."""
        best = Metrics(**saved["best"]) if saved["best"] else None
        return cls(**{**saved, "last": Metrics(**saved["last"]), "best": best})

    def take(self, epoch: int, metrics: Metrics) -> bool:
        """Record an epoch; returns whether it is the best so far (lowest validation loss)."""
        self.epochs, self.last = epoch, metrics
        val_loss = metrics.val_loss
        if not math.isfinite(metrics.train_loss) or not math.isfinite(val_loss or 0.0):
            self.diverged_epoch = epoch
            return False
        if val_loss is None:
            return False
        if self.best is not None and val_loss >= (self.best.val_loss or 0.0):
            return False
        self.best, self.best_epoch = metrics, epoch
        return True


def fit(
    plan: StackPlan,
    images: ImageSet,
    *,
    device: torch.device,
    report: Callable[[EpochReport], bool],
    store: CheckpointStore | None = None,
    parallel: Parallel = SOLO,
    resume: bool = True,
    checkpoint_every_s: float = 30.0,
    compile: When = False,
    dtype: torch.dtype = torch.float32,
    precision: Precision = "auto",
    evaluation: Evaluation = Evaluation(fixed_train_images=0, predictions=False),  # noqa: B008
) -> FitResult:
    """Train a stack to its last epoch, until `report` returns False, or until all members ended.

    Order and dropout of an epoch depend on the seed and the epoch alone, so a run that goes on
    from a checkpoint gives the same numbers as one that was never interrupted.

    Args:
        plan: the members; equal in everything that is not stackable.
        images: cut to the sizes that the plan asks for.
        device: where to compute; the caller sets the number of threads.
        report: receives every epoch; called on rank 0 alone, and decides for all workers.
        store: where checkpoints go; without one nothing is kept.
        parallel: this worker's place among the workers of the stack.
        resume: whether to go on from states in the store.
        checkpoint_every_s: seconds between states; an early end always writes one.
        compile: whether to compile the stack with torch.compile (see `Compiling`).
        dtype: of weights and optimiser; float64 serves tests.
        precision: what the plan's `auto` stands for; `auto` leaves that to the device.
        evaluation: what to measure beside losses and accuracies.

    Raises:
        torch.OutOfMemoryError: if the stack does not fit; the caller may halve it.
        UserError: if the store's states were trained on other images, or are damaged.
    """
    run = _Run(plan, images, device, store, parallel, compile, dtype, precision, evaluation)
    first = run.resume() + 1 if resume else 1
    if first == 1:
        run.measure_start()
    checkpoint_s = time.monotonic()
    for epoch in range(first, plan.shared.train.epochs + 1):
        epoch_report = run.epoch(epoch)
        last = epoch == plan.shared.train.epochs or run.all_ended
        due = run.rank_0_says(not last and time.monotonic() - checkpoint_s >= checkpoint_every_s)
        epoch_report = replace(epoch_report, checkpoint=due)
        go_on = run.rank_0_says(parallel.rank != 0 or report(epoch_report))
        if last:
            break
        if due or not go_on:
            run.save_state(epoch)
            checkpoint_s = time.monotonic()
        if not go_on:
            return run.finish(stopped=True)
    return run.finish(stopped=False)


def probe(
    plan: StackPlan,
    images: ImageSet,
    *,
    device: torch.device,
    steps: int = 4,
    precision: Precision = "auto",
) -> float:
    """Seconds that one epoch would take, evaluation included, from a few real steps."""
    stack = Stack(plan, images, device, precision=precision)
    # First-use costs are not part of an epoch; on a GPU they end with the capture of the graph.
    stack.train_epoch(1, max_steps=12 if device.type == "cuda" else 1)
    started_s = time.perf_counter()
    stack.train_epoch(1, max_steps=steps)
    train_s = (time.perf_counter() - started_s) / min(steps, stack.steps_per_epoch)
    train = plan.shared.train
    evaluations = sum(map(train.evaluates, range(1, train.epochs + 1))) / train.epochs
    evaluated = evaluations * (len(images.val.targets) + len(images.test.targets))
    started_s = time.perf_counter()
    stack.evaluate("val", max_batches=1)
    per_image_s = (time.perf_counter() - started_s) / min(stack.eval_batch, len(images.val.targets))
    return train_s * stack.steps_per_epoch + per_image_s * evaluated


@dataclass
class _Run:
    """The state of one call of `fit`."""

    plan: StackPlan
    images: ImageSet
    device: torch.device
    store: CheckpointStore | None
    parallel: Parallel
    compile: When
    dtype: torch.dtype
    precision: Precision
    evaluation: Evaluation

    def __post_init__(self) -> None:
        plan, device, on_gpu = self.plan, self.device, self.device.type == "cuda"
        self._stack = Stack(
            plan,
            self.images,
            device,
            parallel=self.parallel,
            dtype=self.dtype,
            fixed_train_images=self.evaluation.fixed_train_images,
            precision=self.precision,
        )
        key = f"{self._stack.model.shape} {plan.size} {plan.shared.train.batch_size} {self.dtype}"
        self._compiling = Compiling(self._stack, self.compile, on_gpu=on_gpu, key=key)
        self._members = [Member(member.trial_id) for member in plan.members]
        self._now = self._stack.model.variables()
        self._best = {name: tensor.clone() for name, tensor in self._now.items()}
        self._totals = {"trained_images": 0, "train_s": 0.0, "wall_s": 0.0}  # of each member

    @property
    def all_ended(self) -> bool:
        """Whether no member trains any more."""
        return all(member.ended for member in self._members)

    def measure_start(self) -> None:
        """Record the validation loss before training: the stand-in for diverged models."""
        loss_K, _ = self._stack.evaluate("val")
        for member, loss in zip(self._members, loss_K.tolist(), strict=True):
            member.initial_val_loss = loss

    def epoch(self, epoch: int) -> EpochReport:
        """Train and evaluate one epoch; returns a row for each member that began it alive."""
        started_s = time.perf_counter()
        train = self._stack.train_epoch(epoch)
        train_s = time.perf_counter() - started_s
        self._compiling.epoch_took(train_s, self.plan.shared.train.epochs - epoch)
        evaluated = self.plan.shared.train.evaluates(epoch)
        columns = dict(zip(("train_loss", "train_accuracy"), train, strict=True))
        columns |= self._evaluate() if evaluated else {}
        layers: list[dict[str, Any]] = [{} for _ in self._members]
        if self.evaluation.layers and evaluated and self.parallel.rank == 0:
            layers = [asdict(measured) for measured in measure_layers(self._stack)]
        epoch_s = time.perf_counter() - started_s
        values_KM = torch.stack(list(columns.values()), dim=1).tolist()
        rows = []
        for k, alive in enumerate(self._stack.alive_K.tolist()):
            member = self._members[k]
            if member.ended:
                continue
            values = dict(zip(columns, values_KM[k], strict=True))
            metrics = Metrics(**{**_NOT_EVALUATED, **values}) if alive else Metrics()
            if member.take(epoch, metrics):
                for name, tensor in self._now.items():
                    self._best[name][k].copy_(tensor[k])
            member.stopped = evaluated and self._out_of_patience(member)
            if member.ended:
                self._stack.alive_K[k] = False
            rows.append(
                EpochRow(
                    trial_id=member.trial_id,
                    epoch=epoch,
                    epoch_s=epoch_s,
                    **asdict(metrics),
                    **(layers[k] if alive else {}),
                )
            )
        steps, batch = self._stack.steps_in(epoch), self.plan.shared.train.batch_size
        images = min(self._stack.images_per_epoch, steps * batch)
        for name, more in zip(self._totals, (images, train_s, epoch_s), strict=True):
            self._totals[name] += more
        return EpochReport(epoch, tuple(rows), epoch_s, images * self.plan.size / train_s)

    def _out_of_patience(self, member: Member) -> bool:
        """Whether a model that could train on has had no lower validation loss for too long."""
        train = self.plan.shared.train
        if train.patience is None or member.best_epoch is None or member.diverged_epoch is not None:
            return False
        return member.best_epoch + train.patience <= member.epochs < train.epochs

    def _evaluate(self) -> dict[str, Tensor]:
        """Loss and accuracy by their names in `Metrics`, [K] each, on what is judged on."""
        splits = {"val": "val", "test": "test"}
        if self.evaluation.fixed_train_images:
            splits["train"] = "train_end"
        measured = {}
        for split, name in splits.items():
            measured[f"{name}_loss"], measured[f"{name}_accuracy"] = self._stack.evaluate(split)
        return measured

    def _measure_end(self) -> None:
        """Evaluate models that were stopped after an epoch without; their best epochs stay."""
        epoch = max(member.epochs for member in self._members)
        if self.plan.shared.train.evaluates(epoch):
            return
        measured = self._evaluate()
        for k, member in enumerate(self._members):
            if member.diverged_epoch is None:
                values = {name: float(value_K[k]) for name, value_K in measured.items()}
                member.last = replace(member.last, **values)

    def rank_0_says(self, answer: bool) -> bool:
        """Rank 0 decides for all workers, whose clocks differ."""
        flag = torch.tensor([int(answer and self.parallel.rank == 0)], device=self.device)
        return bool(self.parallel.all_sum_(flag))

    def resume(self) -> int:
        """Go on from the last epoch that every member has a state of; returns it, 0 if none."""
        if self.store is None:
            return 0
        epoch = self.store.common_epoch([member.trial_id for member in self._members])
        if epoch == 0:
            return 0
        for k, member in enumerate(self._members):
            tensors, info = self.store.load_state(member.trial_id, epoch)
            if info["images"] != self.images.checksum:
                name = self.store.name(member.trial_id, f"state-{epoch}")
                raise UserError(
                    f"{name}: was trained on other images (checksum {info['images'][:12]}, now "
                    f"{self.images.checksum[:12]}); bring those back, or start a new run"
                )
            for name, rows in self._tensors().items():
                rows[k].copy_(tensors[name])
            self._members[k] = Member.from_json(info["member"])
            self._stack.alive_K[k] = not self._members[k].ended
            self._stack.optimizer.steps = info["steps"]
            self._totals = {name: info[name] for name in self._totals}
        return epoch

    def _tensors(self) -> dict[str, Tensor]:
        """What a state holds, a row per member: the model now and at its best, and moments."""
        best = {"best" if n == "params" else f"best.{n}": rows for n, rows in self._best.items()}
        return {**self._now, **best, **self._stack.optimizer.state}

    def save_state(self, epoch: int) -> None:
        """Write every member's state of this epoch, then remove the states before."""
        if self.store is not None and self.parallel.rank == 0:
            for k, member in enumerate(self._members):
                tensors = {name: rows[k].cpu() for name, rows in self._tensors().items()}
                info = {
                    "member": member.to_json(),
                    "images": self.images.checksum,
                    "steps": self._stack.optimizer.steps,
                    **self._totals,
                }
                self.store.save(member.trial_id, f"state-{epoch}", tensors, info)
            self.store.keep_only([member.trial_id for member in self._members], epoch)
        self.parallel.barrier()

    def finish(self, stopped: bool) -> FitResult:
        """Write the final checkpoints and return each member's outcome.

        The states stay: whoever records the outcome removes them afterwards (`keep_only`), so that
        a process killed in between does not train everything again.
        """
        if stopped:
            self._measure_end()
        if self.store is not None and self.parallel.rank == 0:
            for k, member in enumerate(self._members):
                if member.best is not None:
                    self._save_weights(k, "best", self._best, member.best)
                if member.diverged_epoch is None and (member.stopped or not stopped):
                    self._save_weights(k, "last", self._now, member.last)
        asked = self.evaluation.predictions and self.parallel.rank == 0
        last = predict(self._stack, self._now) if asked else []
        if asked and all(member.best_epoch in (None, member.epochs) for member in self._members):
            best = last  # every best epoch is the last one
        else:
            best = predict(self._stack, self._best) if asked or self._stack.binary else []
        labels = label_scores(self._stack, self.images, best)
        scores = self._keep_predictions(best, last) if asked else [{} for _ in self._members]
        self.parallel.barrier()
        outcomes = [self._outcome(k, labels[k], scores[k]) for k in range(self.plan.size)]
        return FitResult(outcomes, stopped)

    def _keep_predictions(
        self, best: Sequence[Predictions], last: Sequence[Predictions]
    ) -> list[dict[str, float]]:
        """Keep predictions of the best and the last epoch; returns calibrations by column."""
        columns: list[dict[str, float]] = []
        for k, member in enumerate(self._members):
            told = {}
            if member.best_epoch is not None:
                told["best_"] = (member.best_epoch, best[k])
            if member.diverged_epoch is None:
                told[""] = (member.epochs, last[k])
            of_member: dict[str, float] = {}
            for prefix, (_, predictions) in told.items():
                ece, brier = predictions.calibration()
                of_member |= {f"{prefix}test_ece": ece, f"{prefix}test_brier": brier}
            columns.append(of_member)
            if self.store is not None and told:
                label = self.plan.members[k].train.label
                names = (label,) if label is not None else self.images.labels
                by_epoch = dict(told.values())  # one epoch may be both
                parts = [
                    predictions.table(names).assign(epoch=epoch)
                    for epoch, predictions in sorted(by_epoch.items())
                ]
                self.store.save_predictions(member.trial_id, as_parquet(parts))
        return columns

    def _save_weights(
        self, k: int, kind: str, values: Mapping[str, Tensor], metrics: Metrics
    ) -> None:
        assert self.store is not None
        member, config, images = self._members[k], self.plan.members[k], self.images
        info = {
            "trial_id": member.trial_id,
            "kind": kind,
            "epoch": member.best_epoch if kind == "best" else member.epochs,
            "metrics": asdict(metrics),
            "config": config.model_dump(mode="json"),
            "shape": vars(self._stack.model.shape),
            "label": config.train.label,
            "images": {name: getattr(images, name) for name in _IMAGES},
        }
        state = self._stack.model.member_state(k, values)
        self.store.save(member.trial_id, kind, state, info)

    def _outcome(self, k: int, labels: list[LabelScore], scores: dict[str, Any]) -> TrialOutcome:
        member = self._members[k]
        best = asdict(member.best or Metrics())
        trained_images, train_s, wall_s = self._totals.values()
        path = None
        if self.store is not None and member.best is not None:
            path = self.store.name(member.trial_id, "best")
        return TrialOutcome(
            trial_id=member.trial_id,
            stack_id=self.plan.stack_id,
            status=member.status,
            epochs=member.epochs,
            **asdict(member.last),
            best_epoch=member.best_epoch,
            **{f"best_{name}": value for name, value in best.items() if "train" not in name},
            initial_val_loss=member.initial_val_loss,
            images_per_s=trained_images / train_s if train_s else math.nan,
            wall_s=wall_s,
            parameters=self._stack.model.flat.shape[1],
            stack_size=self.plan.size,
            diverged_epoch=member.diverged_epoch,
            checkpoint=path,
            train_images=self._stack.images_per_epoch,
            precision_used=self._stack.precision,
            labels=tuple(labels) if member.best is not None else (),
            **scores,
        )
