"""From the `model` section of a sweep to a stack: the ViT, or what a builder makes."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vitbench import user_code
from vitbench.config import Model
from vitbench.errors import UserError
from vitbench.model.generic import Build, BuiltShape, GenericStack
from vitbench.model.layout import VitShape
from vitbench.model.stacked import StackedModel
from vitbench.model.vit import StackedVit
from vitbench.torchvision_import import with_torchvision

_EXTRAS = {"timm": "timm"}


def stacked_model(
    model: Model, members: int, *, image_size: int, channels: int, outputs: int, rounded: bool
) -> StackedModel:
    """K models of a section; `initialise` gives them their weights.

    Raises:
        UserError: if a builder's source is not the one that the section was resolved with.
    """
    images = {"image_size": image_size, "channels": channels, "outputs": outputs}
    if model.build is None:
        return StackedVit(vit_shape(model, **images), members, rounded=rounded)
    if model.source is not None:
        user_code.require(model.build, model.source)
    built = BuiltShape(build=model.build, args=model.args, **images)
    return GenericStack(built, builds(built), members, rounded=rounded)


def vit_shape(model: Model, *, image_size: int, channels: int, outputs: int) -> VitShape:
    """The ViT that a section without a builder describes, for images of this size."""
    return VitShape(
        image_size=image_size,
        channels=channels,
        patch_grid=model.patch_grid,
        depth=model.depth,
        heads=model.heads,
        width=model.width,
        mlp=model.mlp_width,
        outputs=outputs,
        dropout=model.dropout,
        init=model.init,
    )


def of_shape(shape: Mapping[str, Any], members: int) -> StackedModel:
    """The stack whose `shape` had these fields, as checkpoints hold them."""
    if "build" not in shape:
        return StackedVit(VitShape(**shape), members)
    built = BuiltShape(**shape)
    return GenericStack(built, builds(built), members)


def builds(shape: BuiltShape) -> Build:
    """What makes one module of this shape each time it is called."""
    given = {"channels": shape.channels, "image_size": shape.image_size, "outputs": shape.outputs}
    make = functools.partial(builder(shape.build), **given, **shape.args)
    return lambda: with_torchvision(make)


def builder(build: str) -> Callable[..., nn.Module]:
    """What `build` names: a function of the contract build(*, channels, image_size, outputs, ...).

    Raises:
        UserError: if there is no such function, or its library is not installed.
    """
    library, _, name = build.partition(":")
    if library not in user_code.LIBRARIES:
        return user_code.load(build)
    return functools.partial(_timm if library == "timm" else _torchvision, name)


def _library(name: str) -> Any:
    try:
        return with_torchvision(lambda: importlib.import_module(name))
    except ImportError as error:
        extra = _EXTRAS.get(name)
        how = f"pip install 'vitbench[{extra}]'" if extra else f"pip install {name}"
        raise UserError(f"{name} cannot be imported ({error}); {how}") from error


def _timm(name: str, *, channels: int, image_size: int, outputs: int, **args: Any) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "resnet18"
        raise UserError(f"timm has no model {name}; there are e.g. {near}")
    module: nn.Module = timm.create_model(
        name, pretrained=False, in_chans=channels, num_classes=outputs, **args
    )
    return module


def _torchvision(
    name: str, *, channels: int, image_size: int, outputs: int, **args: Any
) -> nn.Module:
    models = _library("torchvision").models
    if name not in models.list_models(module=models):
        near = ", ".join(models.list_models(module=models, include=f"*{name[:4]}*")[:5])
        raise UserError(f"torchvision has no model {name}; there are e.g. {near or 'resnet18'}")
    module: nn.Module = models.get_model(name, weights=None, num_classes=outputs, **args)
    return module if channels == 3 else _Coloured(module)


class _Coloured(nn.Module):
    """A model for colour images that is given grey ones: three equal channels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images_BCYX: Tensor) -> Tensor:
        """Logits [B, O] of [B, 1, Y, X]."""
        logits: Tensor = self.module(images_BCYX.expand(-1, 3, -1, -1))
        return logits
