"""Requests to end: by signals, the first asks and the second stops; and how stacks hear of them."""

from __future__ import annotations

import os
import signal

import pytest
import ray

from vitbench.records.types import Status
from vitbench.tuning.stop import Interrupt, StopRequests


def test_the_first_signal_asks_and_the_second_stops() -> None:
    """Ctrl-C and SIGTERM alike; afterwards the handlers of before are back."""
    before = signal.getsignal(signal.SIGTERM)
    asked: list[bool] = []
    with Interrupt(lambda: asked.append(True)) as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested and asked == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.ray
def test_stacks_hear_what_is_asked_of_them(local_ray: None) -> None:
    """Another process sees requests at once, those of its own sweep alone, and can be killed."""

    @ray.remote(num_cpus=0)
    class Worker:
        def hears(self, stack_id: str) -> tuple[bool, Status | None]:
            return requests.runs_here(stack_id), requests.reason_to_end(stack_id)

    requests, others = StopRequests(), StopRequests()
    worker = Worker.remote()
    others.end(Status.INTERRUPTED)
    assert ray.get(worker.hears.remote("a")) == (True, None)
    requests.end(Status.STOPPED, "a")
    assert ray.get(worker.hears.remote("a")) == (True, Status.STOPPED)
    requests.end(Status.INTERRUPTED)
    requests.over("b")
    assert ray.get(worker.hears.remote("b")) == (False, Status.INTERRUPTED)
    assert requests.kill("a") == 0, "its last stack is another"
    assert requests.kill("b") == 1
    with pytest.raises(ray.exceptions.RayActorError):
        while True:
            ray.get(worker.hears.remote("b"))
    requests.close()
    assert requests.reason_to_end("a") is None and others.reason_to_end("a") is not None
