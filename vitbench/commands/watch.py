"""`vitbench watch RESULTS`: the report of a sweep in the browser, live while it runs."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitbench.errors import UserError
from vitbench.options import Parser
from vitbench.records.folder import require_results

if TYPE_CHECKING:
    from vitbench.analysis.report.live import Server

_LOOK_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    args = build_parser().parse_args(argv)
    try:
        require_results(args.results)
        from vitbench.analysis.report.live import Server, Watch

        watch = Watch(args.results)
        server = Server(watch, args.port)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(f"--port {args.port}: cannot be listened at ({error}); leave it out for a free one",
              file=sys.stderr)  # fmt: skip
        return 2
    stop = threading.Event()
    threading.Thread(target=watch.keep_fresh, args=(stop,), daemon=True).start()
    if args.parent is not None:
        threading.Thread(target=_end_with, args=(args.parent, server), daemon=True).start()
    print(f"{server.address}\nCtrl-C ends it", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        server.server_close()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench watch`."""
    parser = Parser(
        prog="vitbench watch",
        description="Serve the report of a results folder to browsers on this machine, refreshed "
        "while the sweep runs; Ctrl-C ends it.",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a results folder")
    parser.add_argument("--port", type=int, default=0, metavar="PORT",
                        help="port on 127.0.0.1 (default: a free one)")  # fmt: skip
    parser.add_argument("--with", dest="parent", type=int, metavar="PID",
                        help="end when this process, which started it, does")  # fmt: skip
    return parser


def _end_with(parent: int, server: Server) -> None:
    """Stop serving once the parent is gone: a process without one is given another."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
