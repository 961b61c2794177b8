"""What the training loop asks of a stack of models, whatever their architecture.

Shape legend: K members, B batch, C channels, Y and X pixels, O outputs, P parameters of one member.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.model.layers import Dropout
from vitbench.model.layout import Slot, views


class StackedModel(nn.Module, ABC):
    """K models of one shape; `flat` [K, P] holds the parameters of one member a row.

    Attributes:
        slots: the tensors of a row, those with weight decay first.
        decayed: columns of `flat` with weight decay, from the first.
        shape: a dataclass of plain values that decides the parameters' shapes.
        draws: whether training draws random numbers.
        image_bytes: of the widest activation of one image in one member, to choose batches by.
        fused: whether a GPU's own programs compute it (see fused_check).
    """

    shape: Any
    draws: bool
    image_bytes: int
    fused = False

    def __init__(self, slots: Sequence[Slot], members: int) -> None:
        super().__init__()
        self.members, self.slots = members, list(slots)
        self._sizes = [slot.size for slot in slots]
        self.decayed = sum(slot.size for slot in slots if slot.decay)
        self.flat = nn.Parameter(torch.zeros(members, sum(self._sizes)))

    @abstractmethod
    def initialise(self, seeds: Sequence[int]) -> None:
        """Give each member the initial weights of its seed, the same in every stack."""

    @abstractmethod
    def forward(self, images_KBCYX: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Logits of every member, [K, B, O].

        Args:
            images_KBCYX: normalised images, [K, B, C, Y, X], or [1, B, C, Y, X] for all members.
            dropout: in training, where random numbers come from; None otherwise.
        """

    def tensors(self, flat_KP: Tensor | None = None) -> dict[str, Tensor]:
        """Views of all parameters by name, each [K, ...]."""
        return views(self.flat if flat_KP is None else flat_KP, self.slots)

    def variables(self) -> dict[str, Tensor]:
        """All that training changes, [K, ...] each: `params`, and what else a model keeps."""
        return {"params": self.flat.detach()}

    def member_state(self, k: int, values: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies of one member's tensors by name, on the CPU; `values` as `variables` gives."""
        row = (values or self.variables())["params"][k : k + 1]
        return {name: t.squeeze(0).cpu().clone() for name, t in self.tensors(row).items()}

    def load_member(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Set one member's tensors by name.

        Raises:
            ValueError: if a name is missing or unknown, or a shape differs.
        """
        expected = {slot.name: slot.shape for slot in self.slots}
        given = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if expected != given:
            first = next(n for n in expected | given if expected.get(n) != given.get(n))
            raise ValueError(
                f"{first}: expected shape {expected.get(first)}, found {given.get(first)}"
            )
        with torch.no_grad():
            for name, view in self.tensors(self.flat[k : k + 1]).items():
                view.copy_(state[name].unsqueeze(0))
