# Palate's commands. `make simulate` and `make test` each make their environment in .venv when it is missing.
# Plain enough for GNU make 3.81 (macOS) and later.

VENV := .venv
BIN := $(VENV)/bin
# The interpreter to make the environment with; the first of these that is 3.11 or later.
PYTHON := python3.11 python3.12 python3.13 python3.14 python3
PACKAGES := data models privacy client server simulation audit cli
RUN := runs/demo

VENV_MADE := $(VENV)/.made
RUN_READY := $(VENV)/.ready-to-run
TEST_READY := $(VENV)/.ready-to-test
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable
INSTALL_HINT := { echo "hint: the install failed; read pip's lines above. On Linux without a GPU, set PIP_EXTRA_INDEX_URL to PyTorch's CPU index" >&2; exit 1; }

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help simulate test test-long lint bench docs clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

simulate: $(RUN_READY) ## Train on the embedded demo and write a report
	@$(BIN)/palate simulate --data demo --folder $(RUN)

test: lint ## Check style and types, then run all tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-long: $(TEST_READY) ## Run the long campaigns: faults, kill points, fuzzing, clean audits
	@PALATE_LONG=1 $(BIN)/python -m pytest -m campaign

lint: $(TEST_READY) .typecheck/palate ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy -p palate
	@$(BIN)/mypy tests/api/typed_use.py

bench: $(RUN_READY) ## Measure quality, speed and memory on the data in PALATE_DATA
	@$(BIN)/python benchmarks/run.py

docs: $(RUN_READY) ## Write docs/cli.md and docs/configuration.md anew from the code
	@$(BIN)/python -m palate.cli.reference docs

clean: ## Remove the environment and caches; runs/ stays
	@rm -rf $(VENV) .typecheck .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist *.egg-info
	@find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# For the type checker, as an installation lays it out: the files of api/ are the package palate, beside them its folders.
.typecheck/palate: pyproject.toml
	@rm -rf $@ && mkdir -p $@ && cd $@ && ln -s $(PACKAGES:%=../../%) ../../api/* .

$(VENV_MADE):
	@python=$$(for candidate in $(PYTHON); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$candidate"; break; fi; \
	done); \
	if [ -z "$$python" ]; then \
	    echo "error: Palate needs Python 3.11 or later; none of these is: $(PYTHON)" >&2; \
	    echo "hint: install it, or name it: make PYTHON=/path/to/python3.12 simulate" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "error: $$python cannot make environments: its venv module is missing" >&2; \
	    echo "hint: on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	echo "Making the environment in $(VENV) (once)"; \
	"$$python" -m venv --clear $(VENV) && touch $@

$(RUN_READY): $(VENV_MADE) pyproject.toml constraints.txt
	@echo "Installing Palate and what it needs into $(VENV) (once, a few minutes)"
	@$(INSTALL) '.[report]' || $(INSTALL_HINT)
	@touch $@

$(TEST_READY): $(VENV_MADE) pyproject.toml constraints.txt
	@echo "Installing Palate and its development tools into $(VENV) (once, a few minutes)"
	@$(INSTALL) '.[dev,report]' || $(INSTALL_HINT)
	@touch $(RUN_READY) $@
