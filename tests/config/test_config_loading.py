"""Sweep files: every problem at once, each with place, value, rule and fix."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vitbench.config import (
    ConfigError,
    Range,
    SweepFile,
    load_results_sweep,
    load_sweep,
    resolved_yaml,
    results_values,
    yaml_file,
)
from vitbench.config.schema import FILE, schema_text

SHIPPED = Path(__file__).parents[2] / "analysis" / "data"
OLD = (
    *(Path(__file__).parents[1] / "old_results").iterdir(),
    SHIPPED / "mnist_arch",
)
GOOD = """\
name: good
dataset: {name: digits}
model: {depth: 2, width: 16, heads: 2}
train: {epochs: 3, lr: 3e-3}
search:
  space: {lr: [3e-3, 1E-4, 1e1], seed: [0, 1]}
scales:
  laptop:
    train: {epochs: 1}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(tmp_path, text), **options)  # type: ignore[arg-type]
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.lines]


def test_exponents_without_a_dot_are_numbers(tmp_path: Path) -> None:
    """PyYAML alone reads 3e-3 as text, the paper's own way to write a learning rate."""
    sweep = load_sweep(write(tmp_path, GOOD))
    assert sweep.train.lr == 0.003
    assert sweep.search.space["lr"] == [0.003, 0.0001, 10.0]


def test_a_path_begins_at_the_file_and_an_override_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep file beside its images runs from anywhere; what is typed is meant as typed."""
    text = GOOD.replace("{name: digits}", "{name: folder, path: photos}")
    path = write(tmp_path, text)
    monkeypatch.chdir("/")
    assert load_sweep(path).dataset.path == str(tmp_path / "photos")
    assert load_sweep(path, overrides=["dataset.path=photos"]).dataset.path == "photos"
    path.write_text(text.replace("photos", "~/photos"))
    assert load_sweep(path).dataset.path == "~/photos"


def test_a_file_is_laid_over_the_one_that_it_extends(tmp_path: Path) -> None:
    """Sections are merged, axes and lists replaced; a problem names the file that has it."""
    (tmp_path / "base").mkdir()
    base = tmp_path / "base" / "base.yaml"
    base.write_text(GOOD.replace("{name: digits}", "{name: folder, path: photos}"))
    text = "extends: base/base.yaml\nname: mine\nsearch: {space: {seed: [3]}}\n"
    text += "scales: {laptop: {train: {epochs: 9}}}\n"
    sweep = load_sweep(write(tmp_path, text), scale="laptop")
    assert (sweep.name, sweep.model.depth, sweep.train.lr) == ("mine", 2, 0.003)
    assert sweep.search.space == {"seed": [3]} and sweep.train.epochs == 9
    assert sweep.dataset.path == str(tmp_path / "base" / "photos")
    base.write_text(GOOD.replace("depth: 2", "depth: 0"))
    assert problems(tmp_path, text.replace("seed: [3]", "seed: [x]")) == [
        "s.yaml:3: search.space.seed[0]='x': must be a whole number; this is text",
        "base/base.yaml:3: model.depth=0: must be at least 1; choose such a value",
    ]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("s.yaml", "s.yaml:1: extends=s.yaml: comes back to this file; name another"),
        ("other.yaml", "other.yaml:1: extends=s.yaml: comes back to this file; name another"),
        (
            "[a]",
            "s.yaml:1: extends=['a']: must be the path of a sweep file, from this one's folder",
        ),
        ("none.yaml", "s.yaml:1: extends=none.yaml: there is no such file; check the path"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, named: str, message: str) -> None:
    """Circles, lists and missing files are one message each."""
    (tmp_path / "other.yaml").write_text("extends: s.yaml\n")
    assert problems(tmp_path, f"extends: {named}\n{GOOD}") == [message]


def test_scales_and_overrides_are_laid_over_the_file(tmp_path: Path) -> None:
    """--scale first, --set last; `paper` is the file as written."""
    path = write(tmp_path, GOOD)
    assert load_sweep(path, scale="laptop").train.epochs == 1
    assert load_sweep(path, scale="paper").train.epochs == 3
    set_both = ["train.epochs=7", "search.space.lr=[1e-2]"]
    found = load_sweep(path, scale="laptop", overrides=set_both)
    assert (found.train.epochs, found.search.space["lr"]) == (7, [0.01])


def test_updates_take_the_place_of_epochs(tmp_path: Path) -> None:
    """One of them says how long models train: both are refused, and a later one wins."""
    both = GOOD.replace("epochs: 3,", "epochs: 3, steps: 40,")
    assert problems(tmp_path, both) == [
        "s.yaml:4: train.steps: says how long models train, and so does epochs; keep one of them"
    ]
    path = write(tmp_path, GOOD.replace("epochs: 1", "steps: 40"))
    found = load_sweep(path, scale="laptop")
    assert (found.train.steps, load_sweep(path).train.steps) == (40, None)
    assert load_sweep(path, overrides=["train.steps=7"]).train.steps == 7
    back = load_sweep(path, scale="laptop", overrides=["train.epochs=5"])
    assert (back.train.steps, back.train.epochs) == (None, 5)
    again = load_sweep(write(tmp_path, resolved_yaml(found)))
    assert again.train == found.train
    text = GOOD.replace("seed: [0, 1]}", "steps: [4, 8]}").replace("epochs: 3, ", "")
    axis = load_sweep(write(tmp_path, text.replace("{epochs: 1}", "{batch_size: 8}")))
    assert load_sweep(write(tmp_path, resolved_yaml(axis))).search == axis.search


def test_every_choice_can_be_an_axis(tmp_path: Path) -> None:
    """`optimizer` and `schedule` have no rule beside their choices, and are checked by those."""
    text = GOOD.replace("lr: [3e-3, 1E-4, 1e1]", "optimizer: [radam, sgd], schedule: [cosine]")
    assert load_sweep(write(tmp_path, text)).search.space["optimizer"] == ["radam", "sgd"]
    found = problems(tmp_path, text.replace("sgd", "sdg"))[0]
    assert "must be one of radam, adamw, sgd" in found and "'sgd'" in found


def test_the_resolved_file_loads_to_the_same_sweep(tmp_path: Path) -> None:
    """sweep.yaml in the results is what --resume compares with."""
    sweep = load_sweep(write(tmp_path, GOOD), scale="laptop")
    again = load_sweep(write(tmp_path, resolved_yaml(sweep)))
    assert again == sweep.model_copy(update={"scales": {}})


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    """One run, one list: nobody mends a file one error at a time."""
    text = """\
name: my sweep
dataset: {name: mnst}
model: {patch_grid: 5, dept: 3, width: "192"}
train:
  epochs: 0
  seed: true
serach: {}
search:
  space:
    lrr: [1]
    lr: [3e-3, -1, 3e-3, x]
"""
    assert problems(tmp_path, text) == [
        "s.yaml:1: name='my sweep': may hold letters, digits, '_', '-' and '.' only; "
        "it names the results folder; leave spaces and / out",
        "s.yaml:2: dataset.name='mnst': must be one of mnist, digits, celeba, faces, folder, "
        "cifar10, cifar100, fashion_mnist, svhn, emnist, huggingface, own; did you mean 'mnist'?",
        "s.yaml:3: model.width='192': must be a whole number; this is text",
        "s.yaml:3: model.dept: there is no such key; did you mean 'depth'?",
        "s.yaml:5: train.epochs=0: must be at least 1; choose such a value",
        "s.yaml:6: train.seed=True: must be a whole number; this is true/false",
        "s.yaml:7: serach: there is no such key; did you mean 'search'?",
        "s.yaml:10: search.space.lrr: there is no such setting; did you mean 'lr'?",
        "s.yaml:11: search.space.lr[1]=-1: must be greater than 0; choose such a value",
        "s.yaml:11: search.space.lr[2]=0.003: stands twice in this axis; keep one of them",
        "s.yaml:11: search.space.lr[3]='x': must be a number; this is text",
    ]


def test_an_unknown_axis_hides_no_shape_that_cannot_be_built(tmp_path: Path) -> None:
    """Unless it is an axis of the shape itself, whose values are then not known."""
    text = """\
name: a
dataset: {name: digits}
model: {heads: 5, width: 64}
search: {space: {learning_rate: [0.1], seed: [0]}}
"""
    assert problems(tmp_path, text) == [
        "s.yaml:3: model.heads=5: does not divide width=64; use one of 1, 2, 4, 8, 16, 32, 64",
        "s.yaml:4: search.space.learning_rate: there is no such setting; did you mean 'lr'?",
    ]
    (only,) = problems(tmp_path, text.replace("learning_rate: [0.1]", "num_heads: [4]"))
    assert "num_heads: there is no such setting; did you mean 'heads'?" in only


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.heads=5",
            "model.heads=5: does not divide width=16; use one of 1, 2, 4, 8, 16",
        ),
        (
            "search.space.patch_grid=[4,5]",
            "search.space.patch_grid=5: does not divide image_size=32; "
            "use one of 1, 2, 4, 8, 16, 32",
        ),
        ("train.epoch=2", "train.epoch: there is no such key; did you mean 'epochs'?"),
        ("search.space.depth={low: 1, high: 3}", "a grid has no ranges"),
        ("search.scheduler=asha", "a grid is trained in full"),
        ("train.patience=0", "train.patience=0: must be at least 1"),
        ("search.inner={lr: [0.1]}", "is in space and in inner; keep it in one of them"),
        ("stack_size=0", "stack_size=0: must be at least 1, or one of auto"),
        ("stack=4", "stack: has another name now; write stack_size"),
        ("search.stack={seed: [0]}", "search.stack: has another name now; write search.inner"),
        ("search.trials=9", "search.trials: has another name now; write search.suggestions"),
        ("budget.trials=9", "budget.trials: has another name now; write budget.models"),
        ("search.space.depth={low: 1, high: 2.5}", "depth is a whole number"),
        ("search.space.mlp={low: 1.5, high: 3}", "mlp is a whole number"),
        ("search.space.depth={low: 1, high: 3, int: true}", "known from the setting; leave it out"),
        ("train.weight_decay=.nan", "train.weight_decay=nan: must be finite"),
        (
            "train.lr=0.1",
            "train.lr=0.1: changes nothing, since search.space.lr says which values are trained; "
            "--set 'search.space.lr=[0.1]'",
        ),
        ("train.train_images=10", "train.batch_size=16: is larger than train_images=10"),
        (
            "search.space.train_images=[8,64]",
            "train.batch_size=16: is larger than train_images=8; use at most 8",
        ),
        (
            "search.space.steps=[10]",
            "search.space.steps: says how long models train, and so does epochs; keep one of them",
        ),
        ("search.space.train_images=[]", "an axis needs at least one value"),
    ],
)
def test_an_override_is_named_as_the_place(tmp_path: Path, override: str, message: str) -> None:
    """What --set breaks is said of --set, not of a line of the file."""
    (first, *_) = problems(tmp_path, GOOD, overrides=[override])
    assert first.startswith(("--set ", "s.yaml"))
    assert any(message in line for line in problems(tmp_path, GOOD, overrides=[override]))


ASHA = """\
name: asha
dataset: {name: digits}
train: {epochs: 20}
search: {method: random, space: {lr: {low: 0.001, high: 0.1}}, scheduler: asha}
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.evaluate_every=1"], None),
        (["train.evaluate_every=log", "search.reduction_factor=2"], None),
        (["train.evaluate_every=2", "search.grace_epochs=2"], None),
        (["train.evaluate_every=log"], "evaluate_every=log: asha compares after epoch 3, which"),
        (["train.evaluate_every=2"], "evaluate_every=2: asha compares after epoch 1, which"),
        (["search.space.evaluate_every=[1,5]"], "evaluate_every=5: asha compares after epoch 1"),
        (["search.objectives=[parameters]"], "scheduler=asha: asha compares by epochs, and param"),
        (["train.patience=3"], "patience=3: is of a grid; a search stops whole suggestions"),
    ],
)
def test_asha_compares_only_where_models_are_evaluated(
    tmp_path: Path, overrides: list[str], message: str | None
) -> None:
    """A rung without an objective would stop nobody, or whoever came next."""
    path = tmp_path / "s.yaml"
    path.write_text(ASHA)
    if message is None:
        assert load_sweep(path, overrides=overrides)
    else:
        found = problems(tmp_path, ASHA, overrides=overrides)
        assert len(found) == 1 and message in found[0]


OLD_WORDS = """\
name: old
dataset: {name: digits}
stack: 3
search:
  method: random
  trials: 5
  stack: {seed: [0, 1]}
  space:
    depth: {low: 1, high: 3, int: true}
budget: {trials: 7}
scales:
  laptop:
    search: {trials: 2}
train: {epochs: 3}
"""


def test_a_typo_does_not_hide_what_is_wrong_with_its_section(tmp_path: Path) -> None:
    """An unknown key counts as the one that was meant, so that the rest can be judged."""
    text = GOOD.replace("depth: 2, width: 16, heads: 2", "layers: 2, width: 16, heads: 3")
    assert problems(tmp_path, text) == [
        "s.yaml:3: model.layers: there is no such key; did you mean 'depth'?",
        "s.yaml:3: model.heads=3: does not divide width=16; use one of 1, 2, 4, 8, 16",
    ]


def test_what_only_the_images_can_tell_is_said_with_its_line(tmp_path: Path) -> None:
    """Of the file or of the scale in use; a value of --set is at no line."""
    text = GOOD.replace("train: {epochs: 3,", "train: {train_images: 9999, epochs: 3,")
    text = text.replace("train: {epochs: 1}", "train: {train_images: 8888}")
    file = SweepFile.read(write(tmp_path, text))
    message = "train.train_images=%s: digits has 1197 images in this split"
    assert file.located(message % 9999) == f"{file.path}:4: {message % 9999}"
    assert file.located(message % 8888) == f"{file.path}:9: {message % 8888}"
    assert file.located(message % 7777) == message % 7777
    assert file.located("no key: at all") == "no key: at all"


def test_old_words_are_refused_with_line_and_new_name(tmp_path: Path) -> None:
    """Also in a scale that is not asked for."""
    assert problems(tmp_path, OLD_WORDS) == [
        "s.yaml:3: stack: has another name now; write stack_size",
        "s.yaml:6: search.trials: has another name now; write search.suggestions",
        "s.yaml:7: search.stack: has another name now; write search.inner",
        "s.yaml:9: search.space.depth.int: whether a setting is a whole number is known from the "
        "setting; leave it out",
        "s.yaml:10: budget.trials: has another name now; write budget.models",
        "s.yaml:13: scales.laptop.search.trials: has another name now; write search.suggestions",
    ]


def test_old_words_in_results_are_read(tmp_path: Path) -> None:
    """Results folders outlive the names of keys."""
    (tmp_path / "sweep.yaml").write_text(OLD_WORDS)
    found = load_results_sweep(tmp_path)
    assert (found.stack_size, found.search.suggestions, found.budget.models) == (3, 5, 7)
    assert found.search.inner == {"seed": [0, 1]}
    assert found.search.space["depth"] == Range(low=1, high=3)
    assert results_values(tmp_path)["search"]["suggestions"] == 5


@pytest.mark.parametrize("folder", sorted(OLD), ids=lambda path: path.name)
def test_old_results_are_read(folder: Path) -> None:
    """They were written under the old words, and are kept as they are."""
    assert "trials: 2" in (folder / "sweep.yaml").read_text()
    assert load_results_sweep(folder).name == folder.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "must be `key: value` lines"),
        ("name: a\nname: b\n", "s.yaml:2: name: the key stands here and on line 1; keep one"),
        ("name: [a\n", "is not valid YAML"),
        ("name:\n\tx: 1\n", "a tab stands where spaces belong"),
        ("name: a\n", "dataset: is missing"),
    ],
)
def test_broken_files_are_explained(tmp_path: Path, text: str, message: str) -> None:
    """Syntax errors name the line and what to do."""
    assert any(message in line for line in problems(tmp_path, text))


def test_missing_files_and_folders_are_explained(tmp_path: Path) -> None:
    """No traceback for a typo in the path."""
    for path, message in ((tmp_path / "no.yaml", "there is no such file"), (tmp_path, "a folder")):
        with pytest.raises(ConfigError, match=message):
            load_sweep(path)


def test_what_cannot_be_compiled_is_said_before_it_is_ignored(tmp_path: Path) -> None:
    """`compile: true` is refused with dropout and with several workers; `auto` never is."""
    for other, message in (
        ("model.dropout=0.1", "models with dropout are not compiled"),
        ("search.space.dropout=[0.0, 0.2]", "models with dropout are not compiled"),
        ("resources.workers=2", "models on several workers are not compiled"),
    ):
        found = problems(tmp_path, GOOD, overrides=["compile=true", other])
        assert any(f"compile=true: {message}" in line for line in found)
        load_sweep(write(tmp_path, GOOD), overrides=["compile=auto", other])
    assert load_sweep(write(tmp_path, GOOD), overrides=["compile=true"]).compile is True


def test_unknown_scales_name_the_nearest(tmp_path: Path) -> None:
    """--scale labtop."""
    (line,) = problems(tmp_path, GOOD, scale="labtop")
    assert line.endswith("there is no scale 'labtop'; did you mean 'laptop'?")


def test_a_typo_in_a_scale_shows_before_it_is_used(tmp_path: Path) -> None:
    """The laptop user finds what would break on the cluster."""
    text = GOOD.replace("train: {epochs: 1}", "train: {epoch: 1}")
    assert any("scales.laptop.train.epoch" in line for line in problems(tmp_path, text))


def test_the_schema_in_the_repository_is_current() -> None:
    """Editors complete keys from it; `python -m vitbench.config.schema` makes it."""
    kept = (Path(__file__).parents[2] / FILE).read_text(encoding="utf-8")
    assert kept == schema_text()


TEXTS = (
    *("1e3", "1E3", "1e-3", "-1e5", "1.e3", ".1e3", "12e03", "1_000", "0x1f", "0o7", "012", "1:30"),
    *("yes", "no", "on", "off", "~", "null", "", "true", ".5", "5.", ".inf", ".nan", "2026-01-01"),
    *("=", "<<", "- a", "a: b", "#x", "a #b", "'q", '"q', "[a", "{a", "%a", "@a", "!a", "&a", "*a"),
    *(
        "|a",
        ">a",
        "? a",
        "---",
        "...",
        "\ta",
        " a ",
        "a\nb",
        "é",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x1b",
    ),
)


def test_what_is_written_is_read_as_the_same(tmp_path: Path) -> None:
    """One YAML dialect: a text that looks like a number stays one in a run's own sweep.yaml."""
    rng = random.Random(0)
    alphabet = "0123456789eE+-._:xo~yn'\" #[]{},&*!|>%@`\n\t\x85é"
    drawn = ["".join(rng.choices(alphabet, k=rng.randint(1, 8))) for _ in range(2000)]
    numbers = [rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300) for _ in range(300)]
    values = {"texts": [*TEXTS, *drawn], "keys": dict.fromkeys(TEXTS, 1), "numbers": numbers}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml_file.dump(values), encoding="utf-8", newline="")
    assert yaml_file.read(file).values == values
