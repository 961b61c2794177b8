"""One cluster of three hosts for all tests here: bringing it up takes longer than using it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from netns_hosts import Lan, why_not
from ray_cluster import RayCluster


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    """Three hosts and a desk, without Ray."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Lan(3) as made:
        yield made


@pytest.fixture(scope="session")
def cluster(lan: Lan) -> RayCluster:
    """The three hosts as one Ray cluster, brought up by `ray up` from the desk."""
    made = RayCluster(lan)
    made.up()
    made.wait_for_nodes(3)
    return made
