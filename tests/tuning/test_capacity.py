"""How many stacks fit: what is counted as free on a Ray that others use too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from vitbench.config import Resources
from vitbench.tuning.cluster import capacity


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A node of two cores, of which each question in turn finds so many free; then the last."""
    answers = list(request.param)

    def free() -> list[dict[str, float]]:
        return [{"CPU": answers.pop(0) if len(answers) > 1 else answers[0]}]

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(capacity, "free_resources_per_node", free)
    monkeypatch.setattr(capacity, "_RELEASED_S", 0.2)
    yield
    assert len(answers) == 1, "nobody asked again"


@pytest.mark.parametrize("two_cores", [[0.0, 1.0, 2.0]], indirect=True)
def test_cores_that_the_sweep_before_gives_back_are_waited_for(two_cores: None) -> None:
    found = capacity.capacity(Resources())
    assert found.cores == (2,) and found.free_slots == 2


@pytest.mark.parametrize("two_cores", [[1.0]], indirect=True)
def test_cores_that_others_keep_are_not_planned_with(two_cores: None) -> None:
    found = capacity.capacity(Resources())
    assert found.cores == (1,) and found.free_slots == 1 and found.slots == 2
