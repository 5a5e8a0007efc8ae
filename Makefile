# `make demo` and `make test` set up everything they need: Python 3.11 or newer and make are enough.
# `make SYSTEM_TORCH=1` takes the torch of $(PYTHON), as a machine's image brings it, instead of installing one; later
# calls keep to it, and SYSTEM_TORCH=0 goes back.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SYSTEM_TORCH ?= $(if $(wildcard $(VENV)/.system-torch),1)
READY := $(VENV)/$(if $(filter-out 0 no,$(SYSTEM_TORCH)),.system-torch,.ready)
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "finetop needs Python 3.11 or newer; try: make PYTHON=python3.12")'
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint

.PHONY: setup demo test test-long lint clean

setup: $(READY)

demo: setup
	$(BIN)/finetop demo

test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile

test-long: setup
	$(BIN)/python -m pytest -m long -n auto --dist load --timeout 1500

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/house.py --check

$(VENV)/.ready: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.system-torch),--clear) $(VENV)
	$(INSTALL) constraints.txt
	touch $@

$(VENV)/.system-torch: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	$(PYTHON) scripts/system_torch.py $(VENV)
	$(INSTALL) $(VENV)/constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache
