# Every target sets up what it needs: on a bare machine with Python 3.11+ `make train` is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: train test lint format bench bench-learning bench-evolution bench-off-policy bench-sb3 docs clean lock bench-killed bench-long-run

train: $(VENV)/.ready
	$(BIN)/tradax train

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks

bench-learning: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks learning

bench-off-policy: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks off_policy off_policy_speed

bench-evolution: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks evolution_speed

bench-sb3: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks sb3_dropin gymnasium_training

bench-killed: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks killed

bench-long-run: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks long_run

docs: $(VENV)/.ready-test
	$(INSTALL) --editable '.[docs]'
	$(BIN)/pdoc --docformat google --output-directory site tradax

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# After a change of dependencies: resolve anew in an empty environment and pin what was found.
lock:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	( sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' ) > requirements.lock.new
	mv requirements.lock.new requirements.lock

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'tradax needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(INSTALL) --editable '.[test]'
	touch $@
