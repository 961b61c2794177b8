"""A builder tried before anything starts: does it keep the contract, and what does it cost?

Shape legend: B batch, C channels, Y and X pixels, O outputs.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from vitbench.errors import UserError, in_a_line
from vitbench.model.builders import builder, builds
from vitbench.model.generic import (
    Build,
    BuiltShape,
    GenericStack,
    with_vmap_rules,
    without_fast_path,
)
from vitbench.model.layers import Dropout
from vitbench.plan.cost import Cost
from vitbench.rng import drawing_from, generator, seeded
from vitbench.user_code import LIBRARIES, raised

_CONTRACT = ("channels", "image_size", "outputs")
_IMAGES = 2


@dataclass(frozen=True)
class Inspected:
    """A model that keeps the contract."""

    cost: Cost
    why_alone: str  # why its members train one by one; empty where they can be stacked
    not_of_one: str  # what it raises in training on a batch of one image; empty where nothing


def unknown_arguments(build: str, names: set[str]) -> dict[str, str]:
    """Arguments that a builder does not take, each with what it takes instead.

    What timm's and torchvision's models take is found out by building one.

    Raises:
        UserError: if there is no such builder, it prints, or lacks what every builder takes.
    """
    with _quiet("is imported"):
        function = builder(build)
    if build.partition(":")[0] in LIBRARIES:
        return {}
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return {}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    known = [name for name, p in parameters.items() if p.kind not in positional]
    for name in _CONTRACT:
        if name not in known:
            raise UserError(
                f"takes no argument {name}; the contract is "
                f"{function.__name__}(*, channels, image_size, outputs, ...)"
            )
    asked = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    lacking = [name for name in asked if name not in {*_CONTRACT, *names}]
    if lacking:
        raise UserError(f"needs an argument {lacking[0]}; write args: {{{lacking[0]}: ...}}")
    own = ", ".join(name for name in known if name not in _CONTRACT) or "none beside those three"
    return {name: own for name in names if name not in known or name in _CONTRACT}


def inspect_built(shape: BuiltShape) -> Inspected:
    """Build a model twice, call it on a few images, count its work, try to stack it.

    Raises:
        UserError: saying what is wrong; with the traceback where the user's code raised.
    """
    build = builds(shape)
    with _quiet("builds"):
        module, again = (_built(build, shape) for _ in range(2))
    given, expected = dict(again.named_parameters()), dict(module.named_parameters())
    lazy = [n for n, t in {**expected, **dict(module.named_buffers())}.items() if is_lazy(t)]
    if lazy:
        raise UserError(f"does not know the size of {lazy[0]} yet; give its layer all sizes")
    differing = [name for name, p in expected.items() if not _same(p, given.get(name))]
    if differing:
        raise UserError(
            f"is not deterministic for a seed: {differing[0]} differs between two builds; draw "
            f"from torch's, numpy's or random's global stream, which are seeded around it"
        )
    trained = [p for p in expected.values() if p.requires_grad]
    if not trained:
        raise UserError("has no parameters to train")
    if not all(p.is_floating_point() for p in trained):
        raise UserError("has parameters that are not real numbers")
    size = (_IMAGES, shape.channels, shape.image_size, shape.image_size)
    images_BCYX = torch.randn(size, generator=generator(0, "inspected"))
    before = {name: p.detach().clone() for name, p in expected.items()}
    with _quiet("is called"):
        _trained(module.train(), images_BCYX, shape)
        with torch.no_grad():
            first_BO = _called(module.eval(), images_BCYX, shape)
            second_BO = _called(module, images_BCYX, shape)
    changed = [name for name, p in module.named_parameters() if not _same(p, before.get(name))]
    if changed:
        raise UserError(f"changes its parameter {changed[0]} when it is called; keep a buffer")
    if not torch.equal(first_BO, second_BO):
        raise UserError("answers the same images differently when called again in eval mode")
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        with_vmap_rules("cpu"),  # the fused kernels are not counted
        without_fast_path(),
    ):
        module(images_BCYX)
    stack = GenericStack(shape, build, members=2)
    stack.initialise([0, 1])
    cost = Cost(sum(p.numel() for p in trained), counter.get_total_flops() // _IMAGES)
    not_of_one = ""
    try:
        with torch.no_grad():
            module.train()(images_BCYX[:1])
    except Exception as error:  # normalisation over one image does, and whatever the user's may
        not_of_one = in_a_line(error)
    return Inspected(cost, stack.why_alone, not_of_one)


def difference_to_solo(shape: BuiltShape) -> float:
    """How far gradients in a stack of two are from those of the module itself, in float64.

    Returns:
        The largest difference of a step's gradients and buffers, as a share of the largest of their
        values; rounding gives about 1e-15.
    """
    stack = GenericStack(shape, builds(shape), members=2)
    stack.initialise([0, 1])
    stack = stack.double().train()
    size = (2, _IMAGES, shape.channels, shape.image_size, shape.image_size)
    images_KBCYX = torch.randn(size, generator=generator(0, "inspected"), dtype=torch.float64)
    starts = [stack.member_state(k) for k in range(2)]
    trained = {slot.name for slot in stack.slots}
    streams = [generator(k, "inspected") for k in range(2)]
    dropout = Dropout(streams, _IMAGES, slice(None)) if stack.draws else None
    stack(images_KBCYX, dropout).square().sum().backward()
    assert stack.flat.grad is not None
    differences, sizes = [0.0], [1e-30]
    for k, start in enumerate(starts):
        module = builds(shape)().double().train()
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(start[name])
        with drawing_from(generator(k, "inspected")):
            module(images_KBCYX[k]).square().sum().backward()
        gradients = stack.member_state(k, {**stack.variables(), "params": stack.flat.grad})
        for name, found in gradients.items():
            expected = own[name].detach()
            if name in trained:
                gradient = own[name].grad  # None of a layer that is not called
                expected = torch.zeros_like(expected) if gradient is None else gradient
            differences.append(float((found - expected).abs().max()))
            sizes.append(float(expected.abs().max()))
    return max(differences) / max(sizes)


def training_bytes(shape: BuiltShape, batch_size: int) -> int:
    """Bytes that one model takes in training: weights, gradient, two moments, and what the
    backward pass keeps of a batch.
    """
    module = builds(shape)().train()
    own = {p.untyped_storage().data_ptr() for p in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    size = (batch_size, shape.channels, shape.image_size, shape.image_size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = module(torch.zeros(size))
    del logits
    return sum(kept.values()) + 16 * sum(p.numel() for p in module.parameters())


def inspect_loss(spec: str, outputs: int, binary: bool) -> None:
    """Call a user's loss on a few logits, as training does.

    Raises:
        UserError: saying what is wrong; with the traceback where the user's code raised.
    """
    with _quiet("is imported"):
        loss = builder(spec)
    stream = generator(0, "inspected")
    logits_BO = torch.randn(4, outputs, generator=stream, requires_grad=True)
    targets = torch.randint(0, outputs, (4,), generator=stream)
    if binary:
        targets = torch.randint(0, 2, (4, outputs), generator=stream)
        targets = targets[:, 0] if outputs == 1 else targets
    given = f"logits [4, {outputs}] and targets {list(targets.shape)}"
    with _quiet("is called"):
        first_B, second_B = (
            _asking(f"{spec} was called on {given}", lambda: loss(logits_BO, targets))
            for _ in range(2)
        )
    if not isinstance(first_B, Tensor) or list(first_B.shape) != [4]:
        shown = list(first_B.shape) if isinstance(first_B, Tensor) else type(first_B).__name__
        raise UserError(f"answers {given} with {shown}; it must be one loss for each image, [4]")
    if not bool(first_B.isfinite().all()):
        raise UserError(f"answers {given} with NaN or infinity")
    if not torch.equal(first_B, second_B):
        raise UserError("answers the same logits differently when called again")
    if not first_B.requires_grad:
        raise UserError("has no gradient: it leaves the graph of its logits")


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and torch.equal(one, other)


def _built(build: Build, shape: BuiltShape) -> nn.Module:
    def make() -> Any:
        with seeded(0, "init"):
            return build()

    module = _asking(f"building {shape.build} with {_shown(shape.args)}", make)
    if not isinstance(module, nn.Module):
        raise UserError(f"returns {type(module).__name__}, not a torch.nn.Module")
    return module


def _called(module: nn.Module, images_BCYX: Tensor, shape: BuiltShape) -> Tensor:
    given = list(images_BCYX.shape)
    logits_BO = _asking(
        f"{shape.build} with {_shown(shape.args)} was called on images {given}",
        lambda: module(images_BCYX),
    )
    wanted = [len(images_BCYX), shape.outputs]
    if not isinstance(logits_BO, Tensor):
        raise UserError(f"answers {type(logits_BO).__name__}, not a tensor of logits {wanted}")
    if list(logits_BO.shape) != wanted:
        raise UserError(f"answers images {given} with {list(logits_BO.shape)}, not {wanted}")
    if not bool(logits_BO.isfinite().all()):
        raise UserError("answers images of noise with NaN or infinity")
    return logits_BO


def _trained(module: nn.Module, images_BCYX: Tensor, shape: BuiltShape) -> None:
    """A forward and a backward pass, as in training."""
    logits_BO = _called(module, images_BCYX, shape)
    if not logits_BO.requires_grad:
        raise UserError(
            "answers logits without a gradient: no parameter can be trained; call neither "
            "detach() nor no_grad()"
        )
    doing = f"the backward pass of {shape.build} with {_shown(shape.args)}"
    _asking(doing, lambda: logits_BO.sum().backward())


def _asking(doing: str, call: Callable[[], Any]) -> Any:
    """What the user's code returns; where it raises, its own traceback is shown."""
    try:
        return call()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code may throw
        raise raised(doing, error) from error


def _shown(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no args"


@contextlib.contextmanager
def _quiet(when: str) -> Iterator[None]:
    """Refuse code that prints: a sweep would print it for every model and every batch."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield
    if text := printed.getvalue().strip():
        line = text.splitlines()[0][:60]
        raise UserError(f"prints to the console when it {when} ({line!r}); remove the print")
