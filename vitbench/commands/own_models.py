"""The functions of the user's that a sweep names, found and tried before anything starts."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench import user_code
from vitbench.commands.request import Settled
from vitbench.config import Model, Range, Sweep, Train, axes_of, models_of, setting_of
from vitbench.config.axes import ARGS, MODEL
from vitbench.config.problems import Path as Place
from vitbench.config.problems import Problem, dotted, shorten
from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError
from vitbench.plan import TrialConfig, broken_rule, expand, members_of
from vitbench.plan.cost import Cost, epoch_images, measure_built_with
from vitbench.user_code import LIBRARIES, NO_CODE, Code, UserCodeError

if TYPE_CHECKING:  # they import torch, which bad input and sweeps of ViTs alone do not wait for
    from vitbench.model.generic import BuiltShape
    from vitbench.model.inspection import Inspected

CODE = "code"  # folder of a run's results that holds the files
_TRIED = 64  # combinations of arguments; a grid may have thousands


@dataclass(frozen=True)
class Own:
    """A sweep with the hash of every builder's source."""

    sweep: Sweep
    code: Code  # the files that travel to the workers


def find(settled: Settled) -> Own:
    """Find the files of every function that a sweep names, and let them be imported.

    Raises:
        ConfigError: with every one that there is not, at its line of the sweep file.
    """
    sweep = settled.sweep
    NO_CODE.use()  # what a sweep before this one left in the process is not looked at
    folder = settled.file.path.resolve().parent
    problems: list[Problem] = []
    files: dict[str, str] = {}

    def source(place: Place, *specs: str | None) -> str | None:
        """The hash of the functions' files together; None where there are none to hash."""
        together: dict[str, str] = {}
        for spec in specs:
            if spec is None or spec.partition(":")[0] in LIBRARIES:
                continue
            try:
                found, travels = user_code.trace(spec, folder)
            except UserError as error:
                problems.append(_problem(place, spec, str(error)))
                continue
            together |= found
            files.update(found if travels else {})
        return user_code.fingerprint(together) if together else None

    losses = sweep.search.space.get("loss", [sweep.train.loss])
    named = [loss for loss in losses if isinstance(loss, str)] if isinstance(losses, list) else []
    train = {"loss_source": source(("train", "loss"), *named)}
    dataset = {"source": source(("dataset", "build"), sweep.dataset.build)}
    sources = {
        name: {"source": source((*_section(name), "build"), model.build)}
        for name, model in _models(sweep).items()
    }
    if problems:
        raise _refused(settled, problems)
    code = Code(files, str(folder) if files else "")
    code.use()
    sweep = sweep.model_copy(
        update={
            "train": sweep.train.model_copy(update=train),
            "dataset": sweep.dataset.model_copy(update=dataset),
            "model": sweep.model.model_copy(update=sources.get(None, {})),
            "models": {
                name: model.model_copy(update=sources.get(name, {}))
                for name, model in sweep.models.items()
            },
        }
    )
    return Own(sweep, code)


def try_out(settled: Settled, sweep: Sweep, images: ImageSet) -> list[str]:
    """Try every builder and every loss of a sweep on a few images; returns what is to be said.

    Raises:
        ConfigError: with every problem at its line of the sweep file.
        UserCodeError: with its traceback, where the user's code raised.
    """
    trials = Trials(images, one_label=_learns_one_label(sweep))
    problems: list[Problem] = []
    notes: list[str] = []
    if sweep.train.loss is not None:
        from vitbench.model.inspection import inspect_loss

        place: Place = ("train", "loss")
        try:
            inspect_loss(sweep.train.loss, trials.outputs, trials.binary)
        except UserCodeError as error:
            raise _raised(settled, place, sweep.train.loss, error) from error
        except UserError as error:
            problems.append(_problem(place, sweep.train.loss, str(error)))
    for name, model in _models(sweep).items():
        place = (*_section(name), "build")
        if model.build is None:
            continue
        try:
            found = list(_argument_problems(sweep, name, model))
            problems += found
            if not found:
                notes += _one_by_one(sweep, name, trials)
        except UserCodeError as error:
            raise _raised(settled, place, model.build, error) from error
        except UserError as error:
            problems.append(_problem(place, model.build, str(error)))
    if problems:
        raise _refused(settled, problems)
    measure_built_with(trials.cost)
    return notes


def _models(sweep: Sweep) -> dict[str | None, Model]:
    """The models that are trained, by name."""
    return {name: sweep.model if name is None else sweep.models[name] for name in models_of(sweep)}


def check_unchanged(results_dir: Path, code: Code) -> None:
    """Refuse to go on with a run whose files have changed; new files beside them are no change.

    Raises:
        UserError: with a diff.
    """
    before = user_code.read(results_dir / CODE)
    lines: list[str] = []
    for name, text in before.items():
        now = code.files.get(name)
        if now != text:
            old, new = text.splitlines(), (now or "").splitlines()
            lines += difflib.unified_diff(old, new, f"{results_dir}/{CODE}/{name}", name, n=1)
    if lines:
        text = "\n".join(line.rstrip("\n") for line in lines)
        raise UserError(
            f"--resume: the code of the models has changed since the sweep was started, so its "
            f"results do not belong together:\n{text}\nUndo the change, or start a new run without "
            f"--resume. (To compare both, give each version a file and a name in `models:`.)"
        )


def facts(sweep: Sweep, code: Code) -> dict[str, Any] | None:
    """For environment.json: what builds which model, and the hashes of its source."""
    models: dict[str, Model] = {"model": sweep.model, **sweep.models}
    built = {n: {"build": m.build, "source": m.source} for n, m in models.items() if m.build}
    if sweep.dataset.build:
        built["dataset"] = {"build": sweep.dataset.build, "source": sweep.dataset.source}
    if sweep.train.loss_source:
        built["loss"] = {"build": sweep.train.loss, "source": sweep.train.loss_source}
    return {"built": built, "files": sorted(code.files)} if built else None


def shape_of(model: Model, images: ImageSet, outputs: int | None = None) -> BuiltShape:
    """What a builder is called with for these images; their own outputs if left out."""
    from vitbench.model.generic import BuiltShape

    assert model.build is not None
    return BuiltShape(
        build=model.build,
        image_size=images.image_size,
        channels=images.channels,
        outputs=images.outputs if outputs is None else outputs,
        args=model.args,
    )


class Trials:
    """Builders' models tried on images of one kind, each combination of arguments once."""

    def __init__(self, images: ImageSet, *, one_label: bool) -> None:
        self._images = images
        self.outputs = 1 if one_label else images.outputs
        self.binary = one_label or not images.classes
        self._known: dict[str, Inspected] = {}

    def of(self, model: Model) -> Inspected:
        """What was found out about a model; a UserError if it breaks the contract."""
        from vitbench.model.inspection import inspect_built

        shape = shape_of(model, self._images, self.outputs)
        key = model.model_dump_json(include={"build", "args"})
        if key not in self._known:
            self._known[key] = inspect_built(shape)
        return self._known[key]

    def cost(self, model: Model, image_size: int) -> Cost:
        """As `plan.cost` asks for it."""
        return self.of(model).cost


def _one_by_one(sweep: Sweep, name: str | None, trials: Trials) -> Iterator[str]:
    """Try a model with the arguments that it is trained with; says why it is not stacked."""
    models: dict[str, Model] = {}
    lasts: dict[int, Train] = {}  # by the images of the last batch
    for trial in itertools.islice(_combinations(sweep, name), 50 * _TRIED):
        models.setdefault(trial.model.model_dump_json(), trial.model)
        size = trial.train.batch_size
        lasts.setdefault(epoch_images(trial.train) % size or size, trial.train)
        if len(models) == _TRIED:
            break
    found = [trials.of(model) for model in models.values()]
    refusing = next((one.not_of_one for one in found if one.not_of_one), "")
    if refusing and min(lasts) < 2 * sweep.resources.workers:
        train = lasts[min(lasts)]
        raise UserError(
            f"cannot be trained on a batch of one image ({refusing}), and the last batch of "
            f"{epoch_images(train)} images by {train.batch_size} leaves a worker no more; change "
            f"train.batch_size or train.train_images"
        )
    reasons = dict.fromkeys(one.why_alone for one in found)
    yield from (f"{name or sweep.model.build} trains one by one: {why}" for why in reasons if why)


def _combinations(sweep: Sweep, name: str | None) -> Iterator[TrialConfig]:
    """Trials of a model: of a grid all, of a search each value once beside the others' first."""
    if sweep.search.is_grid:
        yield from (trial for trial in expand(sweep) if trial.model.name == name)
        return
    axes = {axis: _ends(values) for axis, values in axes_of(sweep.search.space, name)}
    first = {axis: values[0] for axis, values in axes.items()}
    first |= {} if name is None else {MODEL: name}
    for axis, values in [("", [None]), *axes.items()]:
        for value in values:
            params = {**first, **({axis: value} if axis else {})}
            if broken_rule(sweep, params) is None:
                yield from members_of(sweep, params)


def _ends(values: Any) -> list[Any]:
    if not isinstance(values, Range):
        return list(values)
    ends = [values.low, values.high]
    return [int(end) if values.step and end == int(end) else end for end in ends]


def _argument_problems(sweep: Sweep, name: str | None, model: Model) -> Iterable[Problem]:
    """Arguments that the builder does not take, at the line that gives them."""
    from vitbench.model.inspection import unknown_arguments

    assert model.build is not None
    places: dict[str, Place] = {key: (*_section(name), "args", key) for key in model.args}
    for part, axes in (("space", sweep.search.space), ("inner", sweep.search.inner)):
        for axis, _ in axes_of(axes, name):
            if setting_of(axis).startswith(ARGS):
                places.setdefault(setting_of(axis).removeprefix(ARGS), ("search", part, axis))
    for key, known in unknown_arguments(model.build, set(places)).items():
        rule = f"{model.build} takes no such argument"
        yield Problem(places[key], shorten(model.args.get(key, "")), rule, f"it takes {known}")


def _learns_one_label(sweep: Sweep) -> bool:
    axes: Mapping[str, Any] = {**sweep.search.space, **sweep.search.inner}
    found = [v for axis, v in axes.items() if setting_of(axis) == "label" and isinstance(v, list)]
    return any(value is not None for value in (found[0] if found else [sweep.train.label]))


def _section(name: str | None) -> Place:
    return ("model",) if name is None else ("models", name)


def _problem(place: Place, spec: str, text: str) -> Problem:
    rule, _, fix = text.partition("; ")
    return Problem(place, shorten(spec), rule, fix or "mend it")


def _refused(settled: Settled, problems: list[Problem]) -> UserError:
    return settled.file.refuse(problems, scale=settled.scale, overrides=settled.overrides)


def _raised(settled: Settled, place: Place, spec: str, error: UserCodeError) -> UserCodeError:
    return UserCodeError(f"{settled.file.place(place)}: {dotted(place)}={spec}: {error}")
