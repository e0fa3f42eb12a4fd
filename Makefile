# Every command of the project. One virtual environment, .venv; a stamp in it for each extra that is installed,
# so that a second run installs nothing unless pyproject.toml or constraints.txt has changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help lab test test-notebooks screenshots report synthesiser lint bench lock

# The first Python that fits and can make virtual environments; choose another by `make lab PYTHON=…`.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)
need-python = test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with its venv module was found (on Debian:" \
  "apt install python3-venv); name one with \`make … PYTHON=/path/to/python\`." >&2; exit 1; }
BIN := .venv/bin
# Further words for the command behind a target: `make lab ARGS=--no-browser`, `make test ARGS="-k rwkv -x"`.
ARGS ?=

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do \
	  printf 'make %-15s %s\n' "$$name" "$$what"; done

lab: .venv/.installed-lab  ## opens JupyterLab on the first notebook
	$(BIN)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) notebooks/01_first_prompt.ipynb

test: .venv/.installed-test  ## the unit tests
	$(BIN)/python -m pytest workbench $(ARGS)

test-notebooks: .venv/.installed-test  ## notebooks without a browser and in one, on two ipykernels; the shell commands
	$(BIN)/python -m pytest tests $(ARGS)

screenshots: .venv/.installed-test  ## a picture of each notebook in docs/images, taken in a real browser
	WORKBENCH_REQUIRE_BROWSER=1 WORKBENCH_SCREENSHOTS=docs/images $(BIN)/python -m pytest \
	  tests/test_notebooks_browser.py -k "person_uses and installed" $(ARGS)

report: .venv/.installed-lab  ## carries out all notebooks; one site of pages in reports/ that opens without Jupyter
	$(BIN)/python -m workbench.views.report $(ARGS)

# Not in a place of its own in the library: the same command trains one for any backbone and any prompts.
synthesiser: .venv/.installed-lab  ## trains the synthesiser that is bundled with tiny-rwkv again (half an hour on one core)
	$(BIN)/workbench train --run runs/synthesiser --backbone tiny-rwkv --task stories --examples 24000 --task-seed 7 \
	  --settings longest=160 --method synthetic-gradient --method-settings align_steps=4000 --steps 5500 --schedule linear \
	  --batch-size 8 --learning-rate 0.015 --emphasis 6 --no-train-eos --evaluate-every 250 --validation-examples 16 \
	  --keep last --snapshot-every 500 --checkpoint-every 100 $(ARGS)
	mkdir -p data/synthesisers/tiny-rwkv
	cp runs/synthesiser/method/method.json runs/synthesiser/method/method.safetensors data/synthesisers/tiny-rwkv/

lint: .venv/.installed-lint  ## format, rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.installed-test  ## ours beside the peer's; some rows only: ARGS="'rwkv recurrence'"
	$(BIN)/python -m workbench.bench $(ARGS)

lock:  ## writes constraints.txt: the newest versions that pyproject.toml allows, in a fresh environment
	@$(need-python)
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PYTHON) -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip install --quiet --upgrade-strategy eager -e '.[test,lint]'; \
	{ echo "# The versions known to work together. Written by \`make lock\`; do not edit."; \
	  echo "# Without the wheels that only a CUDA build of torch brings: torch pins those itself."; \
	  "$$fresh/bin/python" -m pip freeze --exclude-editable \
	  | sed -E -e 's/\+[A-Za-z0-9.]+$$//' -e '/^(nvidia|cuda|triton|setuptools|wheel|pip)([-_=]|$$)/Id'; } > "$$fresh/constraints.txt"; \
	cp "$$fresh/constraints.txt" constraints.txt

# pip is the last thing that venv puts there, so an environment that was cut short is made again.
$(BIN)/pip:
	@$(need-python)
	$(PYTHON) -m venv .venv

# The extra `test` holds all of `lab`.
.venv/.installed-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into .venv; the first time this takes some minutes."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	@touch $@ $(if $(filter test,$*),.venv/.installed-lab)
