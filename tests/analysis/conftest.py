"""One finished sweep with its figures and report, for all tests that read one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import result_folder

from vitbench.analysis.report import report


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid of result_folder, drawn and reported; not to be changed."""
    made = result_folder.make(tmp_path_factory.mktemp("reported") / "grid")
    report.draw_and_write(made)
    return made


@pytest.fixture
def own_copy(reported: Path, tmp_path: Path) -> Path:
    """The same to do with as a test likes."""
    return shutil.copytree(reported, tmp_path / "grid")
