"""Rules of `model` and `models`: what belongs to the ViT, what to a builder, and which are trained.

Whether a builder can be imported and takes its arguments is found out later, by calling it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vitbench.config.axes import ARGS, AXES, MODEL, models_of, owner_of, setting_of
from vitbench.config.models import Model, Sweep
from vitbench.config.problems import Path, Problem, below, shorten
from vitbench.config.search import Range
from vitbench.words import did_you_mean

_FORM = re.compile(r"timm:\S+|torchvision:\S+|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_VIT_ONLY = [name for name, section in AXES.items() if section is Model]


def problems(sweep: Sweep) -> Iterator[Problem]:
    """Everything that is wrong with the models of a sweep, before a builder is called."""
    yield from _section_problems(sweep.model, ("model",))
    for name, model in sweep.models.items():
        yield from _section_problems(model, ("models", name))
        if not _NAME.fullmatch(name) or f"{name}." == ARGS:
            rule = "is no name for a model"
            yield Problem(("models", name), "", rule, "use letters, digits, '_' and '-'")
    found = list(_choice_problems(sweep))
    yield from found or _axis_problems(sweep)
    if sweep.evaluation.layers and any(m.build for m in (sweep.model, *sweep.models.values())):
        rule = "layers are measured of the Vision Transformer alone"
        yield Problem(("evaluation", "layers"), "true", rule, "leave it out")


def _section_problems(model: Model, path: Path) -> Iterator[Problem]:
    wrong = below(*path)
    if model.build is None:
        if model.args:
            yield wrong(("args",), "", "are of build, and there is none", "name what builds")
        return
    if not _FORM.fullmatch(model.build):
        fix = "write e.g. mymodels:net, timm:NAME or torchvision:NAME"
        yield wrong(("build",), shorten(model.build), "is not `module:function`", fix)
    for name in _VIT_ONLY:
        value = getattr(model, name)
        if value != Model.model_fields[name].default:
            rule = "is a setting of the Vision Transformer, and `build` makes another model"
            yield wrong((name,), shorten(value), rule, f"leave it out, or write args.{name}")


def _choice_problems(sweep: Sweep) -> Iterator[Problem]:
    """The axis `model` against the models that there are."""
    chosen, path = sweep.search.space.get(MODEL), ("search", "space", MODEL)
    if not sweep.models:
        if chosen is not None:
            yield Problem(path, "", "chooses among `models`, and there are none", "add `models:`")
        return
    if sweep.model != Model():
        rule = "stands beside `models`, each of which is a whole section of its own"
        yield Problem(("model",), "", rule, "move it into `models`")
    if not isinstance(chosen, list):
        rule = "must list the models to train"
        yield Problem(path, "", rule, f"write `model: [{', '.join(sweep.models)}]`")
        return
    for number, name in enumerate(chosen):
        if name not in sweep.models:
            fix = did_you_mean(str(name), sweep.models)
            yield Problem((*path, number), shorten(name), "there is no such model", fix)


def _axis_problems(sweep: Sweep) -> Iterator[Problem]:
    """Axes of models that are not trained, and settings that a model does not have."""
    trained = models_of(sweep)
    for part, axes in (("space", sweep.search.space), ("inner", sweep.search.inner)):
        for axis in axes:
            path, owner, setting = ("search", part, axis), owner_of(axis), setting_of(axis)
            if owner is not None and owner not in trained:
                names = [name for name in trained if name is not None]
                fix = did_you_mean(owner, names) if names else "there are no `models`"
                yield Problem(path, "", f"there is no model {owner} in this sweep", fix)
                continue
            if setting == MODEL and (part == "inner" or owner is not None):
                rule = "members of a stack cannot differ in it"
                yield Problem(path, "", rule, "move it to search.space")
            for name in trained if owner is None else [owner]:
                model = sweep.model if name is None else sweep.models[name]
                if setting.startswith(ARGS) and model.build is None:
                    who = "the Vision Transformer" if name is None else name
                    rule = f"is an argument of a builder, and {who} has none"
                elif setting in _VIT_ONLY and model.build is not None:
                    rule = f"is a setting of the Vision Transformer, and {model.build} is another"
                else:
                    continue
                own = [n for n in trained if n is not None and n != name]
                fix = f"write e.g. {own[0]}.{setting}" if own else f"write args.{setting}"
                if isinstance(axes[axis], Range | list):
                    yield Problem(path, "", rule, fix)
