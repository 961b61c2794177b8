"""The doctor sees what is wrong, says what mends it, and never dies of it."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from vitbench import hardware
from vitbench.commands import doctor
from vitbench.commands.doctor import Finding
from vitbench.kernels import check, ops


def named(findings: Iterator[Finding], subject: str) -> Finding:
    """The finding of that subject."""
    return next(finding for finding in findings if finding.subject == subject)


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """A data folder with four files of MNIST's names."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte.gz").touch()
        (raw / f"{part}-labels-idx1-ubyte").touch()
    return tmp_path


def test_a_sound_installation_has_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Here, where the tests run, everything is fit to run; each line is ok, warn or fail."""
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "warn ", "     ")) for line in lines[:-1])
    assert lines[-1].endswith("warning")
    assert any("torch 2." in line for line in lines)


def test_packages_outside_their_range_fail_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old or missing package is named with the range that is needed."""
    real = metadata.version

    def version(name: str) -> str:
        if name == "optuna":
            return "3.0.0"
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    finding = named(doctor.packages(), "packages")
    assert finding.state == "fail"
    assert "optuna 3.0.0 is outside" in finding.detail
    assert "rich is missing" in finding.detail
    assert finding.fix.startswith("pip install")


def test_programs_for_the_gpu_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Triton or a C compiler training is slower, which is a warning with the way out."""
    found = []
    for installed, agrees in ((True, True), (True, False), (False, False)):
        monkeypatch.setattr(ops, "installed", lambda there=installed: there)
        monkeypatch.setattr(check, "adam_agrees", lambda device, same=agrees: same)
        found.append(doctor.gpu_programs())
    assert [finding.state for finding in found] == ["ok", "warn", "warn"]
    assert "C compiler" in found[1].fix and "pip install triton" in found[2].fix


def test_a_gpu_that_torch_cannot_use_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep would silently train on the CPU for days."""
    import torch

    monkeypatch.setattr(hardware, "local_gpu_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    without_cuda = named(doctor.gpu(), "gpu")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    old_driver = named(doctor.gpu(), "gpu")
    assert without_cuda.state == old_driver.state == "fail"
    assert "CUDA build" in without_cuda.fix
    assert "driver" in old_driver.fix and "13.0" in old_driver.fix


@pytest.mark.parametrize(
    ("flags", "found"),
    [("fpu avx512_bf16 amx_bf16 amx_tile", True), ("fpu avx2 avx512_bf16", False)],
)
def test_amx_is_known_by_its_flag(flags: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instructions that make bfloat16 fast on a CPU, not those that only know the format."""
    text = f"processor\t: 0\nflags\t\t: {flags}\nbogomips\t: 1\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding=None: text)
    assert hardware.has_amx() is found


def test_little_shared_memory_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's default of 64 MiB is too little for Ray."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(64 * 2**20, 0, 64 * 2**20))
    finding = named(doctor.memory(), "/dev/shm")
    assert finding.state == "warn" and "--shm-size" in finding.fix


def test_a_containers_cpu_quota_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker --cpus=1.5` hides nothing from sched_getaffinity, yet halves the speed."""
    file = tmp_path / "cpu.max"
    file.write_text("150000 100000\n", encoding="ascii")
    assert doctor._cgroup_cpus(file) == 1.5
    file.write_text("max 100000\n", encoding="ascii")
    assert doctor._cgroup_cpus(file) is None
    assert doctor._cgroup_cpus(tmp_path / "absent") is None
    monkeypatch.setattr(doctor, "_cgroup_cpus", lambda path: 1.5)
    monkeypatch.setattr(hardware, "cpu_count", lambda: 8)
    assert named(doctor.cores(), "cores").state == "warn"


def test_mnist_is_found_or_its_place_is_named(
    mnist_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed and unpacked files both count; where they are absent the folder is named."""
    monkeypatch.setenv("VITBENCH_DATA", str(mnist_folder))
    assert named(doctor.data(), "mnist").state == "ok"
    monkeypatch.setenv("VITBENCH_DATA", str(tmp_path / "elsewhere"))
    absent = named(doctor.data(), "mnist")
    assert absent.state == "warn"
    assert str(tmp_path / "elsewhere" / "MNIST" / "raw") in absent.detail


def test_a_check_that_breaks_is_a_finding_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The doctor is called when things are broken."""

    def broken() -> Iterator[Finding]:
        raise OSError("no /proc here")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (doctor.python, broken))
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "fail broken" in out and "no /proc here" in out
    assert "ok   python" in out


def test_json_holds_every_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is the same as without it."""
    bad = Finding("fail", "packages", "ray is missing", "install it")
    monkeypatch.setattr(doctor, "CHECKS", (doctor.python, lambda: iter([bad])))
    assert doctor.main(["--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["state"] == "ok"
    assert second == {
        "state": "fail", "subject": "packages", "detail": "ray is missing", "fix": "install it",
    }  # fmt: skip
