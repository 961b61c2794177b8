# Everything a newcomer and CI type. What it does to your machine: it makes .venv/ here, and runs
# write results/ here. Override with e.g. `make demo PYTHON=python3.12 SWEEP=sweeps/mnist_arch.yaml`.

VENV := .venv
PY := $(VENV)/bin/python
SWEEP ?= sweeps/mnist_lr.yaml
# Extra words for pip, e.g. an index of smaller torch wheels: see README, "Install". With any, uv,
# which chooses the build of torch by itself, is left out.
PIP_ARGS ?=
# Extra words for pytest, e.g. `make test PYTEST_ARGS="-k engine"`.
PYTEST_ARGS ?=
# Which tests `make test` runs, as a pytest expression of markers.
TESTS := not long and not cluster and not alone
# Extra words for the soak, e.g. `make soak SOAK_ARGS="--minutes 5 --seed 2"`.
SOAK_ARGS ?=
# Test processes side by side: one more than two cores, for those that wait for Ray.
JOBS ?= 3
# python3 where it is new enough, else the first newer one on the PATH.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$p" && exit; done; echo python3)

REQUIREMENTS := pyproject.toml constraints.txt
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench

.PHONY: help demo test test-all soak calibration lint audit format findings docs bench clean
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

demo: $(RUN_STAMP) ## install, run sweeps/mnist_lr.yaml, say where the report is
	@$(PY) -m vitbench.sweep $(SWEEP)

test: $(DEV_STAMP) ## install, run the test suite
	@$(PY) -m pytest -n $(JOBS) --dist loadgroup -m "$(TESTS)" $(PYTEST_ARGS)

test-all: TESTS :=
test-all: test ## the same with nothing left out: also long tests and those of clusters, as CI does

soak: $(DEV_STAMP) ## 20 minutes of random strikes on sweeps of every kind; ends with a table
	@$(PY) tests/soak.py $(SOAK_ARGS)

calibration: $(DEV_STAMP) ## simulate sweeps of known truth, print how often reports are wrong
	@VITBENCH_CALIBRATION_SWEEPS=2000 $(PY) -m pytest -s -q --timeout 0 tests/calibration

lint: $(DEV_STAMP) ## ruff, mypy and the import contracts, as CI runs them
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

audit: $(DEV_STAMP) ## bandit over the code, pip-audit over the pinned versions, which asks PyPI
	@$(PY) -m pip install -qq $(PIP_ARGS) bandit pip-audit
	@$(PY) -m bandit -q -r vitbench --severity-level medium --skip B108
	@$(PY) -m pip_audit -r constraints.txt --no-deps --disable-pip

format: $(DEV_STAMP) ## let ruff mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

findings: $(RUN_STAMP) ## write docs/findings.md out of the results in analysis/data
	@$(PY) docs/make_findings.py

docs: $(RUN_STAMP) ## write the reference pages out of the code
	@$(PY) docs/make_reference.py
	@$(PY) -m vitbench.config.schema

bench: $(BENCH_STAMP) ## install the peers, run the benchmark suite on this machine
	@$(PY) -m vitbench.bench all

clean: ## remove .venv and the caches of tools; results/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps live inside .venv, so they go when it goes; a change of the requirements installs again.
$(PY):
	@"$(PYTHON)" -c 'import sys' 2>/dev/null || { \
	  echo "make: no Python found as '$(PYTHON)'; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), and vitbench needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# uv installs in a fraction of pip's time and takes the build of torch that fits the machine: no CUDA
# where there is no GPU. Where it cannot be had, does not reach its index of torch (asked once,
# without retries) or fails, pip does it all, and a line says so.
UV := $(PY) -m uv pip install -q --python $(PY) --torch-backend=auto -c constraints.txt
define install
	@echo "installing into $(VENV) (a few minutes the first time)"
	@if [ -n "$(PIP_ARGS)" ]; then why="PIP_ARGS is given"; \
	elif ! $(PY) -m pip install -qq uv 2>$(VENV)/uv.log; then why="there is no uv"; \
	elif ! UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=5 $(UV) --dry-run --upgrade --no-deps torch 2>$(VENV)/uv.log; then \
	  why="uv does not reach its index of torch"; \
	elif ! $(UV) -e $(1) 2>$(VENV)/uv.log; then why="uv failed"; fi; \
	if [ -z "$$why" ]; then echo "installed by uv"; \
	else echo "installing by pip: $$why (see $(VENV)/uv.log)" && \
	  $(PY) -m pip install -qq $(PIP_ARGS) -c constraints.txt -e $(1); fi
endef

$(RUN_STAMP): $(PY) $(REQUIREMENTS)
	$(call install,.)
	@touch $@

$(DEV_STAMP): $(PY) $(REQUIREMENTS)
	$(call install,'.[dev]')
	@touch $(RUN_STAMP) $@

$(BENCH_STAMP): $(PY) $(REQUIREMENTS)
	$(call install,'.[bench]')
	@touch $(RUN_STAMP) $@
