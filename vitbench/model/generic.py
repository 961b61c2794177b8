"""K copies of anybody's module as one stacked model: torch.func's vmap over the forward pass.

Gradients come from `.backward()` outside of it: vmap of a gradient asks for rules that torch lacks
for attention. A stack of one, and a module that vmap cannot take, go through plain calls.

Shape legend: K members, B batch, C channels, Y and X pixels, O outputs, P parameters of one member.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitbench.errors import in_a_line
from vitbench.model.layers import Dropout
from vitbench.model.layout import Slot, views
from vitbench.model.stacked import StackedModel
from vitbench.rng import drawing_from, generator, seeded

Build = Callable[[], nn.Module]
_TRIED_IMAGES = 2  # more than one: normalisation over a batch of one is undefined


@dataclass(frozen=True)
class BuiltShape:
    """What a user's module was built from; decides the parameters' shapes."""

    build: str
    image_size: int
    channels: int
    outputs: int
    args: Mapping[str, Any] = field(default_factory=dict)


class GenericStack(StackedModel):
    """K modules that `build` makes, each with its own weights and buffers.

    Weight decay applies to tensors of two dimensions and more, but to none that the module names in
    `no_weight_decay()`, as timm's do. Parameters that ask for no gradient stay as they were built.

    Args:
        shape: what is built.
        build: makes one module; draws from torch's global stream, which is seeded around it.
        members: K.
        rounded: whether matrix products compute in bfloat16 (torch's autocast).

    Attributes:
        why_alone: why the members compute one after another, empty where they compute as one.
    """

    def __init__(
        self, shape: BuiltShape, build: Build, members: int, *, rounded: bool = False
    ) -> None:
        with seeded(0, "init"):
            module = build()
        spared = set(getattr(module, "no_weight_decay", set)())
        slots = [
            Slot(name, tuple(p.shape), p.dim() > 1 and name not in spared, init="built")
            for name, p in module.named_parameters()
            if p.requires_grad
        ]
        super().__init__(sorted(slots, key=lambda slot: not slot.decay), members)
        self.shape, self.rounded = shape, rounded
        self.why_alone = ""
        self._build = build
        # In a tuple torch does not see it: its parameters are not this module's.
        self._hidden = (module,)
        self._kept: dict[str, str] = {}  # names of registered buffers by the module's names
        for name, tensor in _kept_tensors(module).items():
            self._kept[name] = f"kept_{len(self._kept)}"
            repeated = tensor.detach().expand(members, *tensor.shape).clone()
            self.register_buffer(self._kept[name], repeated)
        self.image_bytes = _widest_bytes(module, self._images(1))
        self.draws = self._draws_numbers()

    @property
    def module(self) -> nn.Module:
        """The module whose code computes; its own weights are not used."""
        return self._hidden[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GenericStack:
        """What `.to(...)` calls: the hidden module comes along."""
        self.module._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> GenericStack:
        """Let the module normalise and drop as in training, or not."""
        self.module.train(mode)
        super().train(mode)
        return self

    def initialise(self, seeds: Sequence[int]) -> None:
        """Give each member the weights and buffers with which it is built at its seed."""
        for k, seed in enumerate(seeds):
            with seeded(seed, "init"):
                module = self._build()
            given = dict(module.named_parameters())
            state = {slot.name: given[slot.name].detach() for slot in self.slots}
            self.load_member(k, state | _kept_tensors(module))
        self._choose_way()

    def loaded(self) -> nn.Module:
        """The module itself with the weights of the one member, for its other methods."""
        if self.members != 1:
            raise ValueError(f"one module cannot hold the weights of {self.members}")
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        with torch.no_grad():
            for name, tensor in self.member_state(0).items():
                own[name].copy_(tensor)
        return self.module.eval()

    def variables(self) -> dict[str, Tensor]:
        """`params`, and every buffer as `buffer.<its name in the module>`."""
        kept = {f"buffer.{n}": self.get_buffer(own) for n, own in self._kept.items()}
        return {**super().variables(), **kept}

    def member_state(self, k: int, values: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies of one member's parameters and buffers by the module's names, on the CPU."""
        values = values or self.variables()
        kept = {name: values[f"buffer.{name}"][k].detach().cpu().clone() for name in self._kept}
        return super().member_state(k, values) | kept

    def load_member(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Set one member's parameters and buffers by the module's names.

        Raises:
            ValueError: if a name is missing or unknown, or a shape differs.
        """
        lacking = self._kept.keys() - state.keys()
        if lacking:
            raise ValueError(f"{min(lacking)}: is missing")
        super().load_member(k, {n: t for n, t in state.items() if n not in self._kept})
        with torch.no_grad():
            for name, own in self._kept.items():
                self.get_buffer(own)[k].copy_(state[name])

    def forward(self, images_KBCYX: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Logits of every member, [K, B, O]; see `StackedModel.forward`.

        A module that draws takes its numbers from the member's stream. Workers that share a batch
        draw for their own images, so their number changes what is dropped.
        """
        kind = images_KBCYX.device.type
        half = torch.autocast(kind, torch.bfloat16) if self.rounded else contextlib.nullcontext()
        with half, without_fast_path():
            if self.members == 1 or self.why_alone:
                return self._one_by_one(images_KBCYX, dropout)
            return self._at_once(images_KBCYX)

    def _at_once(self, images_KBCYX: Tensor) -> Tensor:
        tensors = {**self.tensors(), **self._buffers_by_name()}
        shared = len(images_KBCYX) == 1
        images = images_KBCYX[0] if shared else images_KBCYX
        call = vmap(self._call, in_dims=(0, None if shared else 0), randomness="error")
        with with_vmap_rules(images.device.type):
            logits: Tensor = call(tensors, images)
        return logits

    def _one_by_one(self, images_KBCYX: Tensor, dropout: Dropout | None) -> Tensor:
        logits = []
        for k, row_P in enumerate(self.flat.unbind(0)):
            tensors = {n: t.squeeze(0) for n, t in views(row_P.unsqueeze(0), self.slots).items()}
            tensors |= {name: tensor[k] for name, tensor in self._buffers_by_name().items()}
            images = images_KBCYX[0 if len(images_KBCYX) == 1 else k]
            stream = dropout.streams[k] if dropout else None
            with drawing_from(stream) if stream else contextlib.nullcontext():
                logits.append(self._call(tensors, images))
        return torch.stack(logits)

    def _call(self, tensors: dict[str, Tensor], images_BCYX: Tensor) -> Any:
        return functional_call(self.module, tensors, (images_BCYX,))

    def _buffers_by_name(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(own) for name, own in self._kept.items()}

    def _images(self, members: int) -> Tensor:
        """A few images of noise, [K, 2, C, Y, X], to try the module on."""
        like, shape = self.flat, self.shape
        size = (members, _TRIED_IMAGES, shape.channels, shape.image_size, shape.image_size)
        noise = torch.randn(size, generator=generator(0, "tried"))
        return noise.to(device=like.device, dtype=like.dtype)

    @contextlib.contextmanager
    def _on_trial(self) -> Iterator[None]:
        """What is computed in here, in the mode of training, leaves no trace in the buffers."""
        before, was_training = self.variables(), self.training
        before = {name: tensor.clone() for name, tensor in before.items() if name != "params"}
        self.train()
        try:
            yield
        finally:
            self.train(was_training)
            for name, tensor in self.variables().items():
                if name != "params":
                    tensor.copy_(before[name])

    def _draws_numbers(self) -> bool:
        """Whether a forward pass in training takes numbers from torch's global stream."""
        stream = generator(0, "tried")
        with self._on_trial(), torch.no_grad(), drawing_from(stream):
            before = torch.get_rng_state()
            self.module(self._images(1)[0])
            return not torch.equal(before, torch.get_rng_state())

    def _choose_way(self) -> None:
        """Find out with real tensors whether the members can compute as one."""
        self.why_alone = "it draws random numbers in training" if self.draws else ""
        if self.members == 1 or self.draws:
            return
        try:
            with self._on_trial(), torch.enable_grad():
                loss = self(self._images(self.members)).float().sum()
                torch.autograd.grad(loss, self.flat)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever vmap or the module may throw; plain calls go on
            self.why_alone = in_a_line(error)


def with_vmap_rules(device_type: str) -> contextlib.AbstractContextManager[None]:
    """Ways to compute attention for which vmap has rules.

    On a CPU it has none for the fused kernels (torch 2.13) and would go image by image.
    """
    return sdpa_kernel(SDPBackend.MATH) if device_type == "cpu" else contextlib.nullcontext()


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Without the fast path that torch's TransformerEncoderLayer takes in evaluation.

    vmap has no rules for it, and on a GPU it reads weights as if each lay at a multiple of 16
    bytes, which a row of a stack's weights does not promise (torch 2.11: misaligned address).
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _kept_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Buffers, and parameters that ask for no gradient, by name."""
    frozen = {n: p.detach() for n, p in module.named_parameters() if not p.requires_grad}
    return {**dict(module.named_buffers()), **frozen}


def _widest_bytes(module: nn.Module, images_1BCYX: Tensor) -> int:
    """Bytes of the largest tensor that one of the module's parts hands on for one image."""
    widest = [images_1BCYX[0, 0].numel()]

    def look(part: nn.Module, given: Any, made: Any) -> None:
        if isinstance(made, Tensor):
            widest.append(made.numel() // _TRIED_IMAGES)

    hooks = [part.register_forward_hook(look) for part in module.modules()]
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()(images_1BCYX[0])
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return 4 * max(widest)
