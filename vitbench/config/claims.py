"""Claims that a sweep file states before its run: one comparison each, judged by the analysis."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, get_args

from pydantic import Field

from vitbench.config.search import Scalar, Section

Relation = Literal[
    "highest", "lowest", "higher", "lower", "ordered", "associated", "at_least", "at_most"
]
TrialMetric = Literal[
    "train_loss", "val_loss", "test_loss", "train_accuracy", "val_accuracy", "test_accuracy",
]  # fmt: skip
# Of models that learned one label.
LabelMetric = Literal["train_loss_over_constant", "nce", "excess", "ap_norm", "roc_auc", "mcc"]
# Of the attention of a model's last layer: its spread, and what lies on a region of the images per
# patch, against the same of all patches: of faces with landmarks, or on the ink of digits.
AttentionMetric = Literal[
    "effective_patches", "eyes_lift", "mouth_lift", "eye_corners_lift", "hair_band_lift", "ink_lift"
]
ClaimMetric = Literal[TrialMetric, LabelMetric, AttentionMetric, "extent"]
LABEL_METRICS: tuple[str, ...] = get_args(LabelMetric)
ATTENTION_METRICS: tuple[str, ...] = get_args(AttentionMetric)
Arm = dict[str, Scalar]


class Claim(Section):
    """One comparison, stated before the first trial."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="short name of the claim")
    says: str = Field(min_length=1, description="the claim in a sentence")
    metric: ClaimMetric = Field(
        description="what is compared, a column of trials or labels; train_loss_over_constant is "
        "the training loss over H(p) of the training images; excess is the NCE above the noise "
        "floor; effective_patches is the spread of attention that `attention` measures, eyes_lift "
        "and the like how much of it lies on a region of a face, or on a digit's ink, as a "
        "multiple of what uniform attention puts there; extent is the share of a drawn face that "
        "the model's label changes"
    )
    of: Arm | list[Arm] = Field(
        default_factory=dict,
        description="the arm by its settings, e.g. {lr: 0.003}; settings that it leaves open are "
        "averaged over. A list of arms for ordered, from the lowest metric to the highest; left "
        "out for associated",
    )
    relation: Relation = Field(
        alias="is",
        description="highest and lowest: against every other value of the settings in `of`; "
        "higher and lower: than the arm in `than`; ordered: the arms of the list ascend; "
        "associated: `metric` rises with `with_metric` over the values of `over`; at_least and "
        "at_most: than the number in `value`",
    )
    than: Arm | None = Field(default=None, description="of higher and lower: the other arm")
    value: float | None = Field(
        default=None,
        description="of at_least and at_most: the number that the mean of the arm is compared "
        "with, e.g. a test accuracy of 0.9 that is reached with 1,000 images",
    )
    tuned: Literal["lr", "weight_decay"] | None = Field(
        default=None,
        description="a setting that the claim leaves open and that is not averaged over: each "
        "seed of an arm has the value that the other seeds choose by validation loss",
    )
    where: Arm = Field(default_factory=dict, description="settings that all arms compared have")
    margin: float = Field(
        default=0.0, ge=0, description="by how much at least, in units of the metric"
    )
    with_metric: ClaimMetric | None = Field(
        default=None, description="of associated: the other metric"
    )
    over: str | None = Field(
        default=None, description="of associated: the setting whose values are the units"
    )
    family: str = Field(
        default="claims", min_length=1, description="claims of one family are corrected together"
    )

    @property
    def arms(self) -> list[Arm]:
        """The arms that it names, `than` last."""
        named = self.of if isinstance(self.of, list) else [self.of]
        return [*(arm for arm in named if arm), *([self.than] if self.than else [])]

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the claim; a changed claim is another claim."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
