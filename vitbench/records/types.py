"""What the parts of a sweep tell each other, and from which the tables' columns are derived.

A field with words (`Annotated`) is a column of a table, its words the column's description in
docs/results.md; the order of fields is the order of columns. Names are a contract: later versions
add columns and rename none. Dicts begin where JSON does (`to_json`, `from_json`: the ledger and
Tune's results); what is not known is left out there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Any, Self

from vitbench.config.models import UsedPrecision


class Status(StrEnum):
    """Where a trial stands, or how it ended; each with its `meaning`."""

    meaning: str

    PLANNED = "planned", "no epoch is recorded yet"
    RUNNING = "running", "no end is recorded: still training, or the sweep died"
    FINISHED = "finished", "trained to its last epoch"
    STOPPED = (
        "stopped",
        ("stopped early by the search's scheduler or by `train.patience`; its curve is censored"),
    )
    DIVERGED = ("diverged", "its loss was not finite at `diverged_epoch`; frozen there, never best")
    CRASHED = (
        "crashed",
        "its process failed more often than max_failures; `error` names the cause",
    )
    OOM = "oom", "did not fit into memory even alone"
    INTERRUPTED = "interrupted", "ended by Ctrl-C or SIGTERM after an epoch; --resume goes on"
    BUDGET = "budget", "ended by the sweep's budget after an epoch"
    GAVE_UP = (
        "gave_up",
        "ended after an epoch because other stacks crashed of one cause again and again; "
        "--resume goes on",
    )

    def __new__(cls, value: str, meaning: str = "") -> Status:
        """A string that knows its meaning; `Status("finished")` gives the member."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    @property
    def is_done(self) -> bool:
        """Whether this end stands: such a trial is never trained again."""
        return self in (Status.FINISHED, Status.STOPPED, Status.DIVERGED)

    @property
    def is_failure(self) -> bool:
        """Whether the trial could not be trained; --resume tries again."""
        return self in (Status.CRASHED, Status.OOM)

    @property
    def is_pause(self) -> bool:
        """Whether the whole sweep ended first; --resume goes on from the trial's state."""
        return self in (Status.INTERRUPTED, Status.BUDGET, Status.GAVE_UP)

    @property
    def has_loss(self) -> bool:
        """Whether the losses recorded are those of a model that still learns something."""
        return self.is_pause or self in (Status.FINISHED, Status.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is written as a JSON object; what is not known (None) is left out of it."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name; those that hold records become lists of objects."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            name: list(map(_as_json, value)) if isinstance(value, tuple) else value
            for name, value in values
            if value is not None
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave; unknown keys are ignored."""
        return cls(**cls._fields_of(line))

    @classmethod
    def _fields_of(cls, line: Mapping[str, Any]) -> dict[str, Any]:
        return {field.name: line[field.name] for field in fields(cls) if field.name in line}


def _as_json(value: Record | str) -> dict[str, Any] | str:
    return value.to_json() if isinstance(value, Record) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Record):
    """What a sweep decided before its first trial and keeps whenever it is resumed."""

    precision: UsedPrecision | None = None  # what `train.precision: auto` stands for, if anything
    because: str = ""
    threads: int | None = None  # of a search's stacks at most; those of a grid are with its trials


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow(Record):
    """One epoch of one model."""

    trial_id: Annotated[str, "which model"]
    epoch: Annotated[int, "from 1"]
    train_loss: Annotated[float, "running mean over the epoch's batches, as the model trains"]
    val_loss: Annotated[
        float | None, "at the epoch's end; empty where `train.evaluate_every` passes over it"
    ] = None
    test_loss: Annotated[float | None, "at the same time"] = None
    train_accuracy: Annotated[float, "running mean over the epoch's batches"]
    val_accuracy: Annotated[float | None, "at the same time"] = None
    test_accuracy: Annotated[float | None, "at the same time"] = None
    epoch_s: Annotated[float, "seconds that the stack's epoch took, evaluation included"]
    train_end_loss: Annotated[
        float | None, "at the epoch's end, on the first `evaluation.fixed_train_images`"
    ] = None
    train_end_accuracy: Annotated[float | None, "at the epoch's end, on the same images"] = None
    attention_entropy: Annotated[
        list[float] | None, "nats, of each layer, mean over images, heads and tokens; on request"
    ] = None
    grad_norm: Annotated[list[float] | None, "of each layer, on 64 training images"] = None
    weight_norm: Annotated[list[float] | None, "of each layer's parameters"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore(Record):
    """One label as one model knows it: counts and scores from the worker, the rest by the table."""

    trial_id: Annotated[str | None, "which model"] = None
    label: Annotated[str, "which label"]
    task: Annotated[
        str | None, "one label, or all labels where the model learned them together"
    ] = None
    dataset: Annotated[str | None, "data set that was really used"] = None
    seed: Annotated[int | None, "of the model"] = None
    lr: Annotated[float | None, "peak learning rate"] = None
    weight_decay: Annotated[float | None, "weight decay"] = None
    patch_grid: Annotated[int | None, "patches per side"] = None
    depth: Annotated[int | None, "encoder blocks"] = None
    heads: Annotated[int | None, "attention heads"] = None
    width: Annotated[int | None, "hidden size D"] = None
    batch_size: Annotated[int | None, "images per update"] = None
    optimizer: Annotated[str | None, "update rule"] = None
    matched: Annotated[
        int | None, "training images with the label, and as many without; empty for all"
    ] = None
    status: Annotated[Status | None, "how the model ended"] = None
    epochs: Annotated[int | None, "epochs trained"] = None
    best_epoch: Annotated[
        int | None, "epoch of lowest validation loss; test scores are of its weights"
    ] = None
    train_images: Annotated[int, "training images of one epoch"]
    train_positives: Annotated[int, "of which so many have the label"]
    train_base_rate: Annotated[float | None, "share of training images with the label"] = None
    val_images: Annotated[int, "validation images"]
    val_positives: Annotated[int, "of which so many have the label"]
    val_base_rate: Annotated[float | None, "share of validation images with the label"] = None
    test_images: Annotated[int, "test images"]
    test_positives: Annotated[int, "of which so many have the label"]
    test_base_rate: Annotated[float | None, "share p of test images with the label"] = None
    train_loss: Annotated[
        float | None,
        "training loss in nats, mean over the last epoch; empty for models of all labels",
    ] = None
    test_bce: Annotated[float, "binary cross entropy on the test images in nats"]
    constant_bce: Annotated[float | None, "H(p): that of the best constant answer"] = None
    nce: Annotated[
        float | None, "normalised cross entropy, test_bce / constant_bce; 1 is nothing learned"
    ] = None
    rig: Annotated[float | None, "relative information gain, 1 - nce"] = None
    label_noise: Annotated[
        float | None, "share of labels that are wrong on purpose; empty where it is not known"
    ] = None
    observed_rate: Annotated[
        float | None, "share of test images with the label before any were matched"
    ] = None
    floor: Annotated[
        float | None, "nce of a model that knows the truth, whose labels are wrong so often"
    ] = None
    excess: Annotated[
        float | None, "(nce - floor) / (1 - floor); 0 knows the truth, 1 is nothing learned"
    ] = None
    average_precision: Annotated[
        float | None, "area under precision against recall; p by chance"
    ] = None
    ap_norm: Annotated[float | None, "(average precision - p) / (1 - p); 0 by chance"] = None
    roc_auc: Annotated[float | None, "area under the ROC curve; 0.5 by chance"] = None
    mcc: Annotated[float | None, "Matthews correlation at probability 0.5; 0 by chance"] = None
    balanced_accuracy: Annotated[
        float | None, "mean of the accuracies on both sides; 0.5 by chance"
    ] = None
    test_accuracy: Annotated[float, "accuracy at probability 0.5"]
    majority_rate: Annotated[float | None, "accuracy of the best constant answer"] = None
    alc: Annotated[
        float | None, "area under the learning curve: mean validation RIG over epochs"
    ] = None
    reached: Annotated[
        bool | None, "whether validation RIG was 0.25 or more two epochs in a row"
    ] = None
    epochs_to_target: Annotated[int | None, "first of those epochs; empty where censored"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome(Record):
    """How one trial ended: measurements from the worker; the table adds the trial's settings."""

    trial_id: Annotated[str, "hash of the resolved configuration"]
    stack_id: Annotated[str | None, "the stack it trained in"] = None
    status: Annotated[Status, "how it ended, see the list of states"]
    dataset: Annotated[str | None, "data set that was really used"] = None
    lr: Annotated[float | None, "peak learning rate"] = None
    seed: Annotated[int | None, "fixes initial weights and data order, the same in every arm"] = (
        None
    )
    weight_decay: Annotated[float | None, "weight decay"] = None
    patch_grid: Annotated[int | None, "patches per side"] = None
    depth: Annotated[int | None, "encoder blocks"] = None
    heads: Annotated[int | None, "attention heads"] = None
    width: Annotated[int | None, "hidden size D"] = None
    mlp: Annotated[int | None, "hidden size of the MLP"] = None
    parameters: Annotated[int | None, "parameters of the model"] = None
    epochs: Annotated[int | None, "epochs trained"] = None
    train_loss: Annotated[
        float | None, "cross entropy in nats as it trained, mean over the last epoch"
    ] = None
    val_loss: Annotated[float | None, "validation loss after the last epoch"] = None
    test_loss: Annotated[
        float | None, "test loss after the last epoch; reported, never used to choose"
    ] = None
    train_accuracy: Annotated[float | None, "accuracy as it trained, mean over the last epoch"] = (
        None
    )
    val_accuracy: Annotated[float | None, "validation accuracy after the last epoch"] = None
    test_accuracy: Annotated[float | None, "test accuracy after the last epoch"] = None
    best_epoch: Annotated[int | None, "epoch of lowest validation loss"] = None
    best_val_loss: Annotated[float | None, "validation loss at best_epoch"] = None
    best_val_accuracy: Annotated[float | None, "validation accuracy at best_epoch"] = None
    best_test_loss: Annotated[float | None, "test loss at best_epoch"] = None
    best_test_accuracy: Annotated[float | None, "test accuracy at best_epoch"] = None
    images_per_s: Annotated[
        float | None, "its training images a second, beside its stack's other members"
    ] = None
    wall_s: Annotated[float | None, "seconds that its stack trained and evaluated"] = None
    checkpoint: Annotated[str | None, "weights of best_epoch, relative to the results folder"] = (
        None
    )
    error: Annotated[str | None, "cause of a crash"] = None
    label: Annotated[str | None, "the label it was trained on alone; empty for all classes"] = None
    optimizer: Annotated[str | None, "update rule"] = None
    schedule: Annotated[str | None, "learning-rate schedule"] = None
    batch_size: Annotated[int | None, "images per update"] = None
    dropout: Annotated[float | None, "dropout rate"] = None
    image_size: Annotated[int | None, "pixels per side"] = None
    train_images: Annotated[int | None, "training images"] = None
    planned_epochs: Annotated[int | None, "epochs of a full run"] = None
    stack_size: Annotated[int | None, "members of its stack"] = None
    diverged_epoch: Annotated[int | None, "epoch at which its loss was not finite"] = None
    initial_val_loss: Annotated[float | None, "validation loss before training"] = None
    matched: Annotated[
        int | None, "training images with the label, and as many without; empty for all"
    ] = None
    val_images: Annotated[int | None, "validation images"] = None
    test_images: Annotated[int | None, "test images"] = None
    warmup_epochs: Annotated[float | None, "epochs of linear warm-up"] = None
    momentum: Annotated[float | None, "of sgd"] = None
    clip_norm: Annotated[float | None, "largest gradient norm; empty for no clipping"] = None
    precision: Annotated[str | None, "of matrix products, as the sweep file has it"] = None
    train_end_loss: Annotated[
        float | None, "loss on the first training images after the last epoch"
    ] = None
    train_end_accuracy: Annotated[float | None, "accuracy on the same images"] = None
    test_ece: Annotated[
        float | None, "expected calibration error on test images after the last epoch"
    ] = None
    test_brier: Annotated[float | None, "Brier score on test images after the last epoch"] = None
    best_test_ece: Annotated[float | None, "expected calibration error at best_epoch"] = None
    best_test_brier: Annotated[float | None, "Brier score at best_epoch"] = None
    precision_used: Annotated[
        str | None, "what matrix products were computed in: what `auto` was decided to be"
    ] = None
    evaluate_every: Annotated[str | None, "epochs between evaluations, or `log`"] = None
    threads: Annotated[int | None, "of each process that trains its stack, as planned"] = None
    model: Annotated[
        str | None,
        "its name in `models`, or what builds it; empty for the one Vision Transformer of a sweep. "
        "Arguments of builders follow as columns `args.NAME`",
    ] = None
    steps: Annotated[int | None, "updates of a full run; empty where it is given in epochs"] = None
    subset: Annotated[
        str | None, "per_seed where each seed draws its training images; else shared"
    ] = None
    init: Annotated[str | None, "initial values of the Vision Transformer"] = None
    labels: tuple[LabelScore, ...] = ()  # rows of another table

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave; unknown keys are ignored."""
        labels = tuple(map(LabelScore.from_json, line.get("labels") or ()))
        parsed = {"status": Status(line["status"]), "labels": labels}
        return cls(**{**cls._fields_of(line), **parsed})


@dataclass(frozen=True, slots=True, kw_only=True)
class StackReport(Record):
    """What a worker tells the driver of a stack."""

    epoch: int  # the last one that the stack trained; 0 for none
    rows: tuple[EpochRow, ...] = ()  # epochs since the report before
    images_per_s: float | None = None  # training images of all members together
    outcomes: tuple[TrialOutcome, ...] = ()  # of members that have ended with this report
    traceback: str = ""  # of what kept members from being trained
    warnings: tuple[str, ...] = ()  # a line each, since the report before

    def by_epoch(self) -> dict[int, list[EpochRow]]:
        """The rows of each epoch, in order."""
        epochs: dict[int, list[EpochRow]] = {}
        for row in sorted(self.rows, key=lambda row: row.epoch):
            epochs.setdefault(row.epoch, []).append(row)
        return epochs

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Read a result of Tune's, which adds keys of its own."""
        rows = tuple(map(EpochRow.from_json, line["rows"]))
        outcomes = tuple(map(TrialOutcome.from_json, line["outcomes"]))
        parsed = {"rows": rows, "outcomes": outcomes, "warnings": tuple(line.get("warnings", ()))}
        return cls(**{**cls._fields_of(line), **parsed})
