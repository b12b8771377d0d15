# Every target but help first makes the environment that it needs, in .venv, and renews it
# when pyproject.toml or constraints.txt has changed.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help venv run serve test test-quick lint style bench bench-environments bench-serve bench-scaling soak

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11, \
            $(shell $(name) -c '$(SUPPORTED)' 2>/dev/null && echo $(name))) python3)
VENV_PYTHON := .venv/bin/python
# A file's tests share what they start, so they stay in one process; tests/conftest.py says which files come first.
PYTEST := $(VENV_PYTHON) -m pytest -q --dist loadfile --no-loadscope-reorder
RUN_DIR ?= runs/first
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "  Variables: PYTHON (3.11 to 3.13), RUN_DIR (of run and serve), ARGS (more arguments)"

venv: .venv/.installed ## build .venv with everything that running and testing need

run: .venv/.installed ## learn to land on the moon, then serve it; the run is kept in RUN_DIR, runs/first by default
	@$(VENV_PYTHON) -m learner.train --preset ppo --env LunarLander-v3 --target-return 255 --total-timesteps 500000 \
	    --run-dir $(RUN_DIR) --missed-status 0 $(ARGS)
	@$(VENV_PYTHON) -m serve.app $(RUN_DIR)

serve: .venv/.installed ## serve the policy in RUN_DIR, and a page on which it flies
	@$(VENV_PYTHON) -m serve.app $(RUN_DIR) $(ARGS)

# The tests start hundreds of processes, each of which would compile our modules anew where the environment says so.
test test-quick: export PYTHONDONTWRITEBYTECODE =

# Slow tests wait for one another's processes: on two cores three of them take a sixth less time than two.
test: style ## lint, and run the tests
	@nice -n 5 $(VENV_PYTHON) -m mypy & types=$$!; $(PYTEST) -n 3 $(ARGS); tests=$$?; wait $$types && exit $$tests

test-quick: .venv/.installed ## run the tests that start no Ray, browser or machines: for while you write
	$(PYTEST) -n 2 -m 'not slow' $(ARGS)

lint: style ## check style, format and types
	$(VENV_PYTHON) -m mypy -n 2

style: .venv/.installed
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check

bench: .venv/.bench ## measure against RLlib and Stable-Baselines3; writes tests/benchmarks/results
	@$(VENV_PYTHON) -m tests.benchmarks.run $(ARGS)

bench-environments: .venv/.bench ## measure presets on environments, beside the zoo's figures; writes docs/benchmarks.md; half an hour
	@$(VENV_PYTHON) -m tests.benchmarks.environments $(ARGS)

bench-serve: .venv/.bench ## measure the service against plain FastAPI and Ray Serve as it comes; needs wrk
	@[ -d $(RUN_DIR) ] || $(VENV_PYTHON) -m learner.train --target-return 200 --run-dir $(RUN_DIR) --no-video
	@$(VENV_PYTHON) -m tests.benchmarks.serving.run --policy $(RUN_DIR) $(ARGS)

bench-scaling: .venv/.bench ## measure what one learner can take: 100 simulated actors over 8 Ray nodes on this machine; 10 GB
	@$(VENV_PYTHON) -m tests.benchmarks.scaling.run $(ARGS)

soak: .venv/.installed ## an hour of faults over a cluster of namespaces that trains and serves; root on Linux; writes tests/benchmarks/results
	@$(VENV_PYTHON) -m tests.cluster.soak $(ARGS)

# $(call install,EXTRA): a line for each large download, not one for each of some 140 packages. Modules are compiled on
# all cores, which pip does on one; not at all would have every start compile them anew where Python may not write.
define install
@set -o pipefail; $(VENV_PYTHON) -m pip install --disable-pip-version-check --progress-bar off --no-compile \
    -c constraints.txt -e '.[$(1)]' \
  | sed -n -E 's/^ *(Downloading .*\([0-9]{2,}\.?[0-9]* MB\))$$/  \1/p; s/^Installing collected packages.*/  Unpacking .../p'
@$(VENV_PYTHON) -W ignore -m compileall -qq -j 0 .venv/lib || true  # some packages bring templates, no Python
endef

.venv/.installed: pyproject.toml constraints.txt tests/environments.txt
	@$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { \
	  echo "Touchdown needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one: try make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; }
	@echo "Installing into .venv: a few minutes and 3 GB the first time (more with CUDA)"
	@$(PYTHON) -m venv .venv
	$(call install,dev)
	@$(VENV_PYTHON) -m pip install --disable-pip-version-check -q --no-compile --no-deps -r tests/environments.txt
	@touch $@

.venv/.bench: .venv/.installed
	@echo "Installing the peers to measure against into .venv"
	$(call install,bench)
	@touch $@
