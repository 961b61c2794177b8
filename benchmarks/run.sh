#!/usr/bin/env bash
# Measure this machine and gather every machine's results on one page: benchmarks/RESULTS.md.
# Words given are passed on, e.g. benchmarks/run.sh --quick
set -euo pipefail
cd "$(dirname "$0")/.."
make .venv/.installed-bench
.venv/bin/python -m vitbench.bench all "$@"
.venv/bin/python -m vitbench.bench report benchmarks/*/ --to benchmarks/RESULTS.md
