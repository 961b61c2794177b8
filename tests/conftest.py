"""What all tests share: one Ray in each test process that needs one, one finished sweep."""

from __future__ import annotations

import os
import sys

import pytest
import sweep_runs

# What no command foresaw shows itself, here and in processes that tests start.
os.environ["VITBENCH_DEBUG"] = "1"
# Nothing is asked of the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Ray lets workers wait behind every other process, so also behind tests beside its own.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep tests together that share something costly: the finished sweep, or a module's Ray.

    Here, not when all are collected: pytest-xdist reads the groups before a conftest is asked.
    """
    fixtures = set(getattr(item, "fixturenames", ()))
    if item.get_closest_marker("cluster"):
        group = "cluster"  # hosts have fixed addresses
    elif "finished" in fixtures:
        group = "finished"
    else:
        group = f"ray in {item.path.name}"
    if item.get_closest_marker("ray") or item.get_closest_marker("cluster"):
        item.add_marker(pytest.mark.xdist_group(group))
    elif {"local_ray", "finished"} & fixtures:
        raise pytest.UsageError(f"{item.nodeid} uses Ray and is not marked `ray`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that of several processes the last waits for none: hosts, long, Ray's.

    Before all others those that want a process in which no Ray has run.
    """
    order = ("alone", "cluster", "long", "ray")
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in order])


def pytest_sessionfinish() -> None:
    """End the shared Ray while modules are still there; at exit it is too late to do so cleanly."""
    sweep_runs.stop_local_ray()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """torch computes on one thread: on tiny tensors a second one only waits.

    Tests that need no torch are not made to import it.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def pdfs() -> None:
    """Figures as PDF, too, for the test that asks for it; see below."""


@pytest.fixture(autouse=True)
def _figures_are_png(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures as PNG alone: the PDF of one takes longer, most of it for its fonts.

    The shared finished sweep and processes that tests start write both.
    """
    style = sys.modules.get("vitbench.analysis.style")
    if style is not None and "pdfs" not in request.fixturenames:
        monkeypatch.setattr(style, "FORMATS", (".png",))


@pytest.fixture
def local_ray() -> None:
    """A running Ray on this machine: one for all tests that end nothing of it."""
    sweep_runs.start_local_ray()


FINISHED = """
name: tiny
dataset: {name: digits, image_size: 16}
model: {patch_grid: 4, depth: 2, heads: 2, width: 16, mlp: 16}
train: {epochs: 3, batch_size: 64, train_images: 300, val_images: 100, test_images: 50}
search: {method: grid, space: {lr: [0.01, 0.001, 1.0e+6]}}
attention: {top: 1, images: 4}
stack_size: 3
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> sweep_runs.Finished:
    """A real sweep that has ended, with plates and every export; one for all tests that read it.

    One of its three models diverges. Tests that use it are marked `ray`, and change nothing of it.
    """
    base = tmp_path_factory.mktemp("finished")
    file = base / "tiny.yaml"
    file.write_text(FINISHED)
    flags = [word for name in sweep_runs.installed_exports() for word in ("--export", name)]
    with pytest.MonkeyPatch.context() as patch:
        sweep_runs.no_tracking_server(patch)
        code, output = sweep_runs.sweep_here(
            str(file), "--out", str(base / "out"), *flags, draws=True
        )
    assert code == 0, output
    return sweep_runs.Finished(sweep_runs.results_of(base / "out"), output)
