"""Starts a local Ray or joins a cluster, without Ray's own printing."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from vitbench.errors import UserError
from vitbench.hardware import ALLOCATOR_ENV
from vitbench.net import held
from vitbench.tuning.cluster import watch
from vitbench.tuning.ray_private import (
    leave_sigterm_alone,
    listen_on_loopback,
    retry_after_memory_kills,
    send_process_output_to,
)

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
# Of a Ray that is started here: nothing but 127.0.0.1 reaches it, and nobody reads its metrics.
_LOCAL_ENV = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_enable_metrics_collection": "0"}
_TOKEN = Path("~/.ray/auth_token")
_ANSWERS_S = 15.0  # a cluster that somebody joins
# Images travel through a memory-mapped cache, so Ray's object store holds only small messages.
_OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def connect(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join the Ray cluster at `address` (or $RAY_ADDRESS), else start a local one.

    The local one has no dashboard, listens on loopback alone, and ends with the block; a joined one
    is left running. A UserError says that there is no cluster at the address.
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
    listen_on_loopback(not address)
    leave_sigterm_alone()
    retry_after_memory_kills()
    local = contextlib.ExitStack()
    try:
        if address:
            _require_somebody(address)
            # The nodes run already, without the driver's environment.
            ray.init(address=address, runtime_env={"env_vars": ALLOCATOR_ENV}, **options)
        else:
            watch.end_orphans()
            _keep_token_private()
            with _environment(_LOCAL_ENV):
                ray.init(
                    address="local",  # without it Ray joins one that happens to run here
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    **options,
                )
            local.enter_context(watch.watched())
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not address:
            raise
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with "
            f"`ray start --head`, or leave --address out to run on this machine alone."
        ) from error
    try:
        with local:
            yield
    finally:
        with held():
            ray.shutdown()
        watch.ended()


def _require_somebody(address: str) -> None:
    """A ConnectionError where nobody listens: Ray would look for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(str(error)) from error


def _keep_token_private() -> None:
    """Make the token that Ray's processes know each other by readable to this user alone.

    Ray writes it where there is none, readable to everybody.
    """
    path = _TOKEN.expanduser()
    with contextlib.suppress(OSError):  # somebody else's home is for Ray to complain about
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(file, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(32))
        path.chmod(0o600)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set, for processes that are started in the block."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def run_a_task(*, timeout_s: float) -> None:
    """Let the connected cluster run one empty task; a GetTimeoutError if it does not in time."""
    ray.get(ray.remote(lambda: None).remote(), timeout=timeout_s)
