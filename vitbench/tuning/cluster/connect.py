"""Starts a local Ray or joins a cluster, without Ray's own printing."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from vitbench.errors import UserError
from vitbench.hardware import ALLOCATOR_ENV
from vitbench.tuning.ray_private import send_process_output_to

logger = logging.getLogger(__name__)

_RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # also silences a warning about a changed default
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger replaces Tune's own per-trial files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the runner stops trials at the end of an epoch itself
    "TUNE_WARN_THRESHOLD_S": "5",
    # Trials that may wait for a machine; the searcher hands out no more than may run.
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
}
# Images travel through a memory-mapped cache, so Ray's object store holds only small messages.
_OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def connect(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join the Ray cluster at `address` (or $RAY_ADDRESS), else start a local one.

    The local one has no dashboard and ends with the block; a joined one is left running. A
    UserError says that there is no cluster at the address.
    """
    for key, value in {**ALLOCATOR_ENV, **_RAY_ENV}.items():
        os.environ.setdefault(key, value)
    if not verbose:
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=r"ray\..*")
        # Pages of what raylets say of a process that died; the recorder says it in a line.
        send_process_output_to(
            lambda data: logger.info("%s: %s", data["pid"], "\n".join(data["lines"]))
        )
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "logging_level": "INFO" if verbose else "ERROR",
        "log_to_driver": verbose,
        "configure_logging": verbose,
    }
    try:
        if address:
            # The nodes run already, without the driver's environment.
            ray.init(address=address, runtime_env={"env_vars": ALLOCATOR_ENV}, **options)
        else:
            ray.init(include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not address:
            raise
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with "
            f"`ray start --head`, or leave --address out to run on this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_a_task(*, timeout_s: float) -> None:
    """Let the connected cluster run one empty task; a GetTimeoutError if it does not in time."""
    ray.get(ray.remote(lambda: None).remote(), timeout=timeout_s)
