"""The sections of a sweep file, as frozen pydantic models.

Stackable settings (those in which the members of one stack may differ) are declared on the field.
`3` is a whole number and a number, `3.0` and `"3"` are not whole numbers: nothing is guessed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, model_validator
from pydantic.config import JsonDict

from vitbench.config import identity
from vitbench.config.claims import Claim
from vitbench.config.search import Budget, Checkpoints, Search, Section
from vitbench.user_code import SPEC

Precision = Literal["auto", "float32", "bfloat16"]
UsedPrecision = Literal["float32", "bfloat16"]  # what auto is decided to be
Exporter = Literal["tensorboard", "mlflow", "wandb", "trackio"]
EXPORTERS: tuple[str, ...] = get_args(Exporter)
STACKABLE: JsonDict = {"stackable": True}
LENGTHS = ("epochs", "steps")  # of training: one of them says how long


class Dataset(Section):
    """Which images, at which size."""

    name: Literal[
        "mnist", "digits", "celeba", "faces", "folder",
        "cifar10", "cifar100", "fashion_mnist", "svhn", "emnist", "huggingface",
        "own",
    ] = Field(description="data set; left out with `build`, which is `own`")  # fmt: skip
    offline: Literal["digits", "faces"] | None = Field(
        default=None,
        description="data set to use instead where this one can be neither found nor downloaded: "
        "digits for mnist, faces for celeba",
    )
    image_size: int = Field(default=32, ge=4, le=512, description="pixels per side after resizing")
    labels: list[str] | None = Field(
        default=None,
        min_length=1,
        description="attributes to learn and compare (celeba, faces, a folder with a CSV); all "
        "that there are if left out",
    )
    split: Literal["official", "paper"] | None = Field(
        default=None,
        description="of celeba: official (the default) or the paper's 200,000 training images",
    )
    count: int | None = Field(
        default=None, ge=100, description="of faces: images to draw, 20,000 if left out"
    )
    label_noise: float | None = Field(
        default=None,
        ge=0,
        lt=0.5,
        description="of faces: share of the labels that are wrong on purpose, 0.02 if left out",
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="of folder: one subfolder of images per class, or images and one CSV of "
        "attributes; begins at the folder of the sweep file. Of huggingface: ORG/NAME of the Hub, "
        "or a folder that holds such a data set",
    )
    channels: Literal[1, 3] | None = Field(
        default=None,
        description="of folder and huggingface: 1 for grey, 3 for colour (the default)",
    )
    damaged_share: float = Field(
        default=0.001,
        ge=0,
        lt=1,
        description="share of broken or missing image files above which the data set is refused",
    )
    build: str | None = Field(
        default=None,
        pattern=f"^{SPEC}$",
        description="images of your own: `mydata:load`, a function in a file beside the sweep file "
        "or in an installed package (docs/own-model.md)",
    )
    args: dict[str, JsonValue] = Field(default_factory=dict, description="of build")
    source: str | None = Field(
        default=None, description="hash of the files of build; filled in by the sweep"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """What a function builds needs no name."""
        own = isinstance(values, dict) and values.get("build") is not None
        return {"name": "own", **values} if own else values


class Augment(Section):
    """What is done to training images, drawn anew for each seed and epoch, alike in every arm."""

    shift: int = Field(default=0, ge=0, description="moved by up to so many pixels, edges repeated")
    flip: bool = Field(default=False, description="mirrored left to right, every other one")
    cutout: int = Field(
        default=0, ge=0, description="side of a square that is blanked to the mean (pixels)"
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        description="alpha of Beta(alpha, alpha), by which two images and their losses are mixed",
    )


class Model(Section):
    """Shape of the Vision Transformer, whose defaults are the paper's Table 1, or what builds."""

    patch_grid: int = Field(default=4, ge=1, description="patches per side (the paper's 4x4 is 4)")
    depth: int = Field(default=12, ge=1, description="encoder blocks")
    heads: int = Field(default=4, ge=1, description="attention heads; divides width")
    width: int = Field(default=192, ge=1, description="hidden size D")
    mlp: int | None = Field(
        default=None, ge=1, description="hidden size of the MLP; 4 x width if left out"
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="dropout rate")
    init: Literal["paper", "timm", "timm_weights"] = Field(
        default="paper",
        description="initial values: the paper's, those of timm's Vision Transformer, or timm's "
        "with the paper's CLS and position embedding (docs/methods.md)",
    )
    build: str | None = Field(
        default=None,
        min_length=1,
        description="a model of your own in place of the Vision Transformer: `mymodels:net`, a "
        "function in a file beside the sweep file or in an installed package, `timm:NAME` or "
        "`torchvision:NAME` (docs/own-model.md)",
    )
    args: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="of build: its arguments beside channels, image_size and outputs; as axes "
        "they are called `args.NAME`",
    )
    name: str | None = Field(default=None, description="of `models`; filled in by the sweep")
    source: str | None = Field(
        default=None, description="hash of the files that build; filled in by the sweep"
    )

    @property
    def mlp_width(self) -> int:
        """Hidden size of the MLP, with the default filled in."""
        return self.mlp if self.mlp is not None else 4 * self.width


class SharedTrain(Section):
    """Training settings that all members of a stack have in common."""

    epochs: int = Field(
        default=200, ge=1, description="passes over the training images; or say it in `steps`"
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="updates to train for, in place of epochs: the same for every number of images",
    )
    batch_size: int = Field(default=16, ge=1, description="images of one update")
    optimizer: Literal["radam", "adamw", "sgd"] = Field(
        default="radam", description="rule of the updates, as torch.optim has it"
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="constant (the paper names none); cosine decays to zero"
    )
    warmup_epochs: float = Field(default=0.0, ge=0, description="linear warm-up")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest gradient norm of a model; no clipping if left out"
    )
    precision: Precision = Field(
        default="auto",
        description="of matrix products; weights are kept in float32. auto is bfloat16 where every "
        "node that trains is fast in it (GPUs of compute capability 8 and up, processors with "
        "AMX), else float32: decided once, before the first trial, and kept by --resume",
    )
    evaluate_every: Annotated[int, Field(ge=1)] | Literal["log"] = Field(
        default=1,
        description="epochs between evaluations; log evaluates after epochs 1, 2, 4, 8 ...; the "
        "last epoch always is. Best epochs and times to a target are among evaluated epochs",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="of a grid: a model stops after an evaluation when its validation loss has not "
        "been lower for so many epochs; it is `stopped` then, and in no comparison with models "
        "that trained to the end. None stops if left out",
    )
    matched: int | None = Field(
        default=None,
        ge=1,
        description="train on so many images with the label and as many without, the same numbers "
        "for every label; validation and test images are matched, too",
    )
    augment: Augment | None = Field(
        default=None, description="of training images; none if left out"
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of a target that is spread evenly; tables keep the loss without it",
    )
    loss: str | None = Field(
        default=None,
        pattern=f"^{SPEC}$",
        description="a function of your own to train by, `mymodule:loss`: logits [B, O] and "
        "targets [B] -> [B]; cross entropy if left out, and in all tables",
    )
    loss_source: str | None = Field(
        default=None, description="hash of the files of loss; filled in by the sweep"
    )
    train_images: int | None = Field(default=None, ge=1, description="all if left out")
    subset: Literal["shared", "per_seed"] | None = Field(
        default=None,
        description="which training images where there are more: shared, the same for all seeds; "
        "per_seed, drawn anew for each seed and the same in all its arms. If left out, per_seed "
        "where train_images is an axis, else shared",
    )
    val_images: int | None = Field(default=None, ge=1, description="all if left out")
    test_images: int | None = Field(default=None, ge=1, description="all if left out")

    def evaluates(self, epoch: int) -> bool:
        """Whether models are evaluated after this epoch, counted from 1."""
        if self.evaluate_every == "log":
            return epoch == self.epochs or epoch.bit_count() == 1
        return epoch == self.epochs or epoch % self.evaluate_every == 0


class Train(SharedTrain):
    """How one model trains: the settings that may differ inside a stack, beside the shared."""

    lr: float = Field(
        default=3e-4, gt=0, description="peak learning rate", json_schema_extra=STACKABLE
    )
    weight_decay: float = Field(default=0.0, ge=0, json_schema_extra=STACKABLE)
    seed: int = Field(
        default=0,
        ge=0,
        description="fixes initial weights and data order, the same in every arm",
        json_schema_extra=STACKABLE,
    )
    label: str | None = Field(
        default=None,
        description="train on this label alone (one against the rest); all classes if left out",
        json_schema_extra=STACKABLE,
    )


class AttentionExport(Section):
    """Attention plates at the end of a sweep."""

    top: int = Field(default=3, ge=0, description="best trials to export; 0 for none")
    images: int = Field(default=16, ge=1, description="test images to score each of them on")


class Evaluation(Section):
    """What is measured beside losses and accuracies; it changes no model."""

    fixed_train_images: int = Field(
        default=512,
        ge=0,
        description="the first training images, on which loss and accuracy are measured at each "
        "epoch's end, too: train_loss is a mean over an epoch in which the model changes; 0 for "
        "none",
    )
    predictions: bool = Field(
        default=True,
        description="keep what each model says of each test image at its best and last epoch",
    )
    layers: bool = Field(
        default=False,
        description="measure entropy of attention, norm of gradient and norm of weights of every "
        "layer once an epoch",
    )


class Resources(Section):
    """What one stack is given: `workers` processes, each with so many CPUs and GPUs."""

    workers: int = Field(
        default=1,
        ge=1,
        description="processes that share a stack's batches, on one machine or several",
    )
    cpus: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto",
        description="CPUs per worker; also its threads. auto plans them before the first trial, so "
        "that no core idles: 1 where there are stacks enough, more where there are fewer than "
        "cores and for the last ones; written down and kept by --resume. 1 on GPUs and with "
        "several workers",
    )
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="GPUs per worker; auto is 1 where there is one, else 0"
    )

    @property
    def cpus_at_least(self) -> float:
        """CPUs without which no worker starts."""
        return 1.0 if self.cpus == "auto" else self.cpus


class TrialConfig(Section):
    """One model, fully resolved."""

    dataset: Dataset
    model: Model
    train: Train

    @property
    def trial_id(self) -> str:
        """Twelve hex digits that identify the model in every results folder (config.identity)."""
        return identity.trial_id(self.model_dump(mode="json"))


class Sweep(Section):
    """A whole sweep file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="names the results"
    )
    description: str = Field(default="", description="a sentence that leads the report")
    dataset: Dataset
    model: Model = Model()
    models: dict[str, Model] = Field(
        default_factory=dict,
        description="several models by name, in place of `model`; `search.space.model` lists those "
        "to train, and `NAME.lr` in the space is an axis of that model alone",
    )
    train: Train = Train()
    search: Search = Search()
    target_accuracy: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="validation accuracy that the report times the settings by: stated here, "
        "before the sweep",
    )
    claims: list[Claim] = Field(
        default=[],
        description="what the sweep is to decide, stated before its first trial; the report judges "
        "each: supported, refuted or undecided. One that is added or changed later is marked so",
    )
    stack_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="most members that train together as one stack"
    )
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="whether models go through torch.compile: auto does it on a GPU where the "
        "epochs left are worth it",
    )
    resources: Resources = Resources()
    storage: str | None = Field(
        default=None,
        min_length=1,
        description="where results go instead of --out: a path that all nodes see, or s3://… or "
        "gs://…",
    )
    budget: Budget = Budget()
    checkpoints: Checkpoints = Checkpoints()
    evaluation: Evaluation = Evaluation()
    attention: AttentionExport = AttentionExport()
    exports: list[Exporter] = Field(
        default=[],
        description="copies of the results for other tools, a run per model; each needs its extra, "
        "e.g. `pip install 'vitbench[mlflow]'`",
    )
    max_failures: int = Field(
        default=2, ge=0, description="times a crashed stack goes on from its last checkpoint"
    )
    stall_minutes: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="a worker that has not reported for so long is killed, and its stack goes on "
        "from its last checkpoint; three times its last epoch, at least 5, if left out",
    )
    scales: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="named sets of overrides, chosen by --scale"
    )
