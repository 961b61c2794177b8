"""Hosts on one machine: each has its own network, processes, home, /tmp and ssh server.

A host is a process tree in namespaces of its own (network, mounts, process ids), wired to a bridge
that lives in the namespaces of one more such tree, the desk, where the user of the cluster sits.
The machine's own network, its /tmp, /root and processes are not touched: all of it lives in the
namespaces, which end with the first process of each, and those end with this process.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[2]
# A network of its own in every desk: nothing outside can be reached from it, nor reach it.
_NETWORK = "10.77.0"
_DESK_ADDRESS = f"{_NETWORK}.1"
_HOME = "/mnt/home"
SHARED = Path("/mnt/shared")  # the same folder on every host, as a network file system would be
_TOOLS = ("ip", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", "sshd", "rsync", "bash")
_UNSHARE = shlex.split("unshare --net --mount --uts --pid --fork --kill-child=KILL --mount-proc")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts out of namespaces need root on Linux"
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        return (
            f"not installed: {', '.join(missing)} (apt-get install iproute2 openssh-server rsync)"
        )
    probe = subprocess.run(
        [*_UNSHARE, "ip", "link", "add", "probe", "type", "bridge"],
        capture_output=True,
        text=True,
    )
    if probe.returncode:
        return f"namespaces and bridges are not allowed here ({probe.stderr.strip()})"
    return None


@dataclass
class Host:
    """One host: where it is, and the id of its first process as the machine sees it."""

    name: str
    address: str
    folder: Path  # on the machine: home/, tmp/
    unshare: subprocess.Popen[bytes]
    init_pid: int

    def run(
        self,
        *argv: str | Path,
        timeout_s: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, without ssh; its output comes back as text."""
        result = subprocess.run(
            self.enter(*argv, cwd=cwd),
            env=host_env(env),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        if check and result.returncode:
            raise RuntimeError(
                f"{self.name}: {shlex.join(map(str, argv))} ended with {result.returncode}:\n"
                f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
            )
        return result

    def enter(self, *argv: str | Path, cwd: str | None = None) -> list[str]:
        """The command line, for the machine, of a command on the host."""
        into = ["nsenter", "-t", str(self.init_pid), "-n", "-m", "-p"]
        return [*into, "env", f"--chdir={cwd or _HOME}", *map(str, argv)]


def host_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a login on a host: nothing of the machine's own comes along."""
    path = f"{_HOME}/vitbench-src/.venv/bin:{_PATH}"
    return {"HOME": _HOME, "PATH": path, "USER": "root", "LANG": "C.UTF-8", **(extra or {})}


class Lan:
    """A desk and `count` hosts on one bridge; a context manager that leaves nothing behind."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.hosts: list[Host] = []

    def __enter__(self) -> Lan:
        self.base = Path(tempfile.mkdtemp(prefix="vitbench-hosts-"))
        try:
            self._make_files()
            self.desk = self._start("desk", _DESK_ADDRESS)
            _ip(self.desk, "link add lan type bridge")
            _ip(self.desk, f"addr add {_DESK_ADDRESS}/24 dev lan")
            _ip(self.desk, "link set lan up")
            for number in range(1, self._count + 1):
                host = self._start(*_place(number))
                self.hosts.append(host)
                self._wire(host)
            for host in self.hosts:
                self._wait_for_ssh(host)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def key(self) -> str:
        """The user's private key, as the desk sees it."""
        return f"{_HOME}/.ssh/vitbench"

    def ssh(self, host: Host, command: str, timeout_s: float = 60) -> str:
        """Run a command on a host as its user would: from the desk, by ssh."""
        argv = ["ssh", "-o", "ConnectTimeout=3", "-i", self.key, f"root@{host.address}", command]
        return self.desk.run(*argv, timeout_s=timeout_s).stdout

    def cut(self, host: Host) -> None:
        """Pull the host's plug out of the switch: no packet in or out, and no goodbye."""
        _ip(self.desk, f"link set {host.name} down")

    def mend(self, host: Host) -> None:
        """Put the plug back."""
        _ip(self.desk, f"link set {host.name} up")

    def _make_files(self) -> None:
        (self.base / "shared").mkdir()
        # root's home on the hosts is not the machine's: ssh reads it from /etc/passwd.
        lines = Path("/etc/passwd").read_text().splitlines()
        lines = [
            f"root:x:0:0:root:{_HOME}:/bin/bash" if x.startswith("root:") else x for x in lines
        ]
        (self.base / "passwd").write_text("\n".join(lines) + "\n")
        # Names are looked up here alone: there is no name server to wait for.
        names = {"localhost": "127.0.0.1", "desk": _DESK_ADDRESS}
        names |= {name: address for name, address in map(_place, range(1, self._count + 1))}
        hosts = "".join(f"{address} {name}\n" for name, address in names.items())
        (self.base / "hosts").write_text(hosts)
        (self.base / "resolv.conf").write_text("")
        for name in ("user", "host"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.base / name], check=True
            )
        (self.base / "sshd_config").write_text(
            f"HostKey {self.base / 'host'}\nAuthorizedKeysFile {self.base / 'user.pub'}\n"
            "PidFile /run/sshd.pid\nPasswordAuthentication no\nUsePAM no\nPrintMotd no\n"
            "PermitRootLogin prohibit-password\nStrictModes no\nUseDNS no\n"
        )

    def _start(self, name: str, address: str) -> Host:
        folder = self.base / name
        for part in ("home/.ssh", "tmp"):
            (folder / part).mkdir(parents=True, mode=0o700)
        (folder / "tmp").chmod(0o1777)
        (folder / "home" / ".bashrc").touch()
        ssh = folder / "home" / ".ssh"
        if name == "desk":
            shutil.copy(self.base / "user", ssh / "vitbench")
            (ssh / "config").write_text(
                "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
            )
        script = folder / "init.sh"
        script.write_text(_init_script(self.base, folder, serve=name != "desk"))
        # Dies with this process, and takes with it all that runs in its namespaces.
        unshare = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_UNSHARE, "bash", str(script), name],
            env=host_env(),
            stdin=subprocess.DEVNULL,
            stdout=(folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        _wait(lambda: (folder / "ready").exists() or unshare.poll() is not None, f"{name} to start")
        if unshare.poll() is not None:
            raise RuntimeError(f"{name} did not start: {(folder / 'log').read_text()}")
        (child,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        return Host(name, address, folder, unshare, init_pid=int(child))

    def _wire(self, host: Host) -> None:
        _ip(self.desk, f"link add {host.name} type veth peer name eth0 netns {host.init_pid}")
        _ip(self.desk, f"link set {host.name} master lan up")
        _ip(host, f"addr add {host.address}/24 dev eth0")
        _ip(host, "link set eth0 up")
        # Leads nowhere; Ray asks the routing table for its own address.
        _ip(host, f"route add default via {_DESK_ADDRESS}")

    def _wait_for_ssh(self, host: Host) -> None:
        pid_file = Path(f"/proc/{host.init_pid}/root/run/sshd.pid")
        _wait(pid_file.exists, f"sshd of {host.name} to listen")

    def _end(self) -> None:
        hosts = [*self.hosts, self.desk] if hasattr(self, "desk") else self.hosts
        for host in hosts:
            # With its first process end all the others of a host, and its mounts and network.
            os.kill(host.init_pid, signal.SIGKILL)
        for host in hosts:
            host.unshare.wait(timeout=10)
        shutil.rmtree(self.base)


def _place(number: int) -> tuple[str, str]:
    """Name and address of a host, counted from 1."""
    return f"h{number}", f"{_NETWORK}.{10 + number}"


def _init_script(base: Path, folder: Path, *, serve: bool) -> str:
    """The first process of a host: mounts, loopback, sshd, and then to wait for its orphans."""
    # What lies under /tmp would vanish behind the host's own /tmp.
    needed = [REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), base]
    kept = [path for path in needed if path.is_relative_to("/tmp")]
    lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs tmpfs /mnt"]
    lines.append("mkdir /mnt/home /mnt/shared /mnt/keep")
    for number, path in enumerate(kept):
        lines.append(f"mkdir /mnt/keep/{number}; mount --rbind {path} /mnt/keep/{number}")
    lines += [
        f"mount --bind {folder / 'home'} /mnt/home",
        f"mount --bind {base / 'shared'} /mnt/shared",
        *(f"mount --bind {base / x} /etc/{x}" for x in ("passwd", "hosts", "resolv.conf")),
        f"mount --bind {folder / 'tmp'} /tmp",
    ]
    for number, path in enumerate(kept):
        lines.append(f"mkdir -p {path}; mount --rbind /mnt/keep/{number} {path}")
    lines += [
        "mount -t tmpfs -o size=512m tmpfs /dev/shm",
        "mount -t tmpfs tmpfs /run; mkdir -m 755 /run/sshd",
        "hostname $1; ip link set lo up",
    ]
    if serve:
        lines.append(f"{shutil.which('sshd', path=_PATH)} -D -e -f {base / 'sshd_config'} &")
    lines += [f"touch {folder / 'ready'}", "while :; do sleep 3600 & wait $!; done"]
    return "\n".join(lines) + "\n"


def _ip(host: Host, command: str) -> None:
    # Only the network namespace is entered: `netns PID` names a process as the machine sees it.
    subprocess.run(["nsenter", "-t", str(host.init_pid), "-n", "ip", *command.split()], check=True)


def _wait(done: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)
