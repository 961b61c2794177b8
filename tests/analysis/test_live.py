"""The live report: refreshed from the ledger, on loopback, behind a token, GET and nothing else."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import result_folder
from rich.console import Console

from vitbench import sweep
from vitbench.analysis import results
from vitbench.analysis.report import report
from vitbench.analysis.report.live import Server, Watch
from vitbench.commands import watch as command


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    """A sweep of which seven trials have ended, served."""
    server = Server(Watch(result_folder.make(tmp_path / "part", until=7)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return str(answer.read().decode())


def refused(url: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(url, method=method, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    return error.value.code


def end_one_more(folder: Path) -> None:
    """What the driver of a sweep appends when a trial ends."""
    waiting = results.load(folder).trials.query("status == 'planned'")["trial_id"].iloc[0]
    line = {"kind": "outcome", "time_s": 2e9, "trial_id": waiting, "status": "crashed"}
    with (folder / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps(line) + "\n")


def test_the_page_follows_the_ledger(served: Server) -> None:
    """Values change while trials train, and so does the version that the page asks for."""
    page, version = get(served.address), get(served.address + "version")
    assert "23 trials have no end yet" in page and f'data-version="{version}"' in page
    assert 'src="data:image/png' in page  # the main figure
    assert not served.watch.refresh()  # nothing is new
    end_one_more(served.watch.folder)
    assert served.watch.refresh()
    assert "22 trials have no end yet" in get(served.address)
    assert get(served.address + "version") != version
    assert not (served.watch.folder / "figures").exists()  # a watcher writes nothing


def test_only_get_behind_the_token_on_this_machine(served: Server) -> None:
    """Neither another method, nor a guess, nor a file outside, nor another site's name."""
    root = served.address.removesuffix(f"{served.token}/")
    assert served.server_address[0] == "127.0.0.1"
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert refused(served.address, method) == 501
    assert refused(root) == refused(f"{root}guess/") == 404
    assert "name: made" in get(served.address + "sweep.yaml")
    assert refused(served.address + "ledger.jsonl") == 404
    assert refused(served.address + "..%2f..%2fetc%2fpasswd.csv") == 404
    assert refused(served.address, Host="evil.example") == 404


def test_a_request_does_not_wait_for_a_page_that_is_being_made(
    served: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a large sweep takes to read, what was made last is there at once."""
    began, go_on = threading.Event(), threading.Event()
    made = served.watch._made

    def slow() -> object:
        began.set()
        go_on.wait(30)
        return made()

    monkeypatch.setattr(served.watch, "_made", slow)
    end_one_more(served.watch.folder)
    thread = threading.Thread(target=served.watch.refresh)
    thread.start()
    assert began.wait(30)
    assert "23 trials have no end yet" in get(served.address)
    go_on.set()
    thread.join()
    assert "22 trials have no end yet" in get(served.address)


def test_a_ledger_that_cannot_be_read_leaves_the_page_of_before(
    served: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The watch goes on: the next look may be better."""
    looked, stop = threading.Event(), threading.Event()

    def broken() -> bool:
        looked.set()
        raise ValueError("half a line")

    monkeypatch.setattr(served.watch, "refresh", broken)
    thread = threading.Thread(target=served.watch.keep_fresh, args=(stop, 0.01))
    thread.start()
    assert looked.wait(30)
    deadline = time.monotonic() + 30
    while "half a line" not in (said := capsys.readouterr().err):
        assert time.monotonic() < deadline, said
    stop.set()
    thread.join()
    assert "23 trials have no end yet" in get(served.address)


def test_a_folder_without_results_and_a_port_that_is_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what to do."""
    assert command.main([str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
    made = result_folder.make(tmp_path / "made", until=1)
    assert command.main([str(made), "--port", "99999"]) == 2
    assert "--port 99999" in capsys.readouterr().err


def test_a_sweep_that_has_started_nothing_has_a_page_that_waits(tmp_path: Path) -> None:
    """`sweep --watch` says the address before Ray has started."""
    made = result_folder.make(tmp_path / "none", until=0)
    full = (made / "ledger.jsonl").read_text()
    (made / "ledger.jsonl").write_text(full.splitlines()[0] + "\n")
    watch = Watch(made)
    assert b"has started no trial yet" in watch.page.body
    (made / "ledger.jsonl").write_text(full)
    assert watch.refresh() and b"30 trials have no end yet" in watch.page.body


@pytest.mark.slow
def test_a_watch_that_a_sweep_started_ends_with_it(tmp_path: Path) -> None:
    """No server is left behind, whatever the sweep died of."""
    made = result_folder.make(tmp_path / "made", until=1)
    words = [sys.executable, "-m", "vitbench.commands.watch", str(made), "--with"]
    code = (
        "import os, subprocess; p = subprocess.Popen("
        f"[*{words!r}, str(os.getpid())], stdout=subprocess.PIPE, text=True, start_new_session=True"
        "); print(p.stdout.readline().strip(), p.pid); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    address, pid = done.stdout.split()
    assert address.startswith("http://127.0.0.1:")
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)  # its end is the event, which is no child's of ours
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_the_sweep_says_the_address(tmp_path: Path) -> None:
    """On the console that shows its progress, as soon as the page is there."""
    made = result_folder.make(tmp_path / "made", until=1)
    said, shown = threading.Event(), io.StringIO()

    class Heard(Console):
        def print(self, *texts: object, **how: object) -> None:
            super().print(*texts, **how)
            said.set()

    watch = sweep._start_watch(made, Heard(file=shown, width=200))
    try:
        assert said.wait(60)
        address = shown.getvalue().split()[-1]
        assert "29 trials have no end yet" in get(address)
    finally:
        watch.terminate()
        watch.wait(30)


def test_a_large_sweep_is_watched_at_a_glance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting is compared with every other, and the page says so; the report itself is whole."""
    made = result_folder.make(tmp_path / "large", until=20)

    def compared(results: object) -> None:
        raise AssertionError("this takes minutes for 10,000 trials")

    with monkeypatch.context() as patch:
        patch.setattr(report, "GLANCE_TRIALS", 29)
        patch.setattr(report.summary, "summarise", compared)
        page = Watch(made).page.body.decode()
    assert "30 trials are many for a page that is made again and again" in page
    assert "10 trials have no end yet" in page and 'src="data:image/png' in page
    assert page.count("<svg") == 3 and "By learning rate" in page
    assert "are many for a page" not in Watch(made).page.body.decode()
