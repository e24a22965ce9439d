# Every target sets up what it needs: on a bare machine with Python 3.11+ `make train` is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
LICENCES := MIT;BSD;Apache;PSF;Python Software Foundation;NCSA;Public Domain;MPL-2.0;Mozilla Public License 2.0
# Without compiling: Python does it for what is imported, a small part of what is installed. It is to
# keep that, for a program that compiles all of its imports anew takes seconds longer to start.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint requirements.lock

# What tests and benchmarks train is no trial of the user's.
test bench bench-% fuzz: export TRADAX_TRIALS := off

.PHONY: train test lint format bench bench-quick bench-counts bench-calibration bench-learning bench-evolution bench-off-policy bench-sb3 docs clean lock bench-killed bench-full-disk bench-long-run fuzz audit

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

# Speed against other libraries, an hour; make bench ROWS="ppo_cartpole_64 sac_64": some rows.
bench: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks speed $(ROWS)

# Is anything over 20% worse than in benchmarks/recorded.json? bench-counts: without running anything.
bench-quick: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks quick

bench-counts: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks quick --counts

bench-learning: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks learning

# MARKETS=10 make bench-calibration: fewer markets than 200 a scenario.
bench-calibration: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks calibration

bench-off-policy: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks off_policy speed sac_64 td3_64 sac_256 td3_256 sac_64_seeds td3_64_seeds \
		sac_256_seeds td3_256_seeds

bench-evolution: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks speed genetic_cartpole genetic_falling genetic_trading genetic_torch es_cartpole es_trading

bench-sb3: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks sb3_dropin gymnasium_training

bench-killed: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks killed

bench-full-disk: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks full_disk

bench-long-run: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks long_run

# make fuzz COUNT=100000 SEED=1: so many damaged files of each kind; none may do more than be refused.
fuzz: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks.fuzz --count $(or $(COUNT),2000) --seed $(or $(SEED),0)

# Licences of everything that is installed, and known vulnerabilities of everything that is pinned.
# TA-Lib states no licence in its metadata; its LICENSE file is BSD's with two clauses. The second
# part asks PyPI, and fails where there is no answer: no answer is not "none known".
audit: $(AUDIT)/.ready $(VENV)/.ready-test
	$(AUDIT)/bin/pip-licenses --python=$(BIN)/python --order=license --partial-match \
		--ignore-packages TA-Lib tradax --allow-only='$(LICENCES)'
	$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

docs: $(VENV)/.ready-test
	$(INSTALL) --editable '.[docs]'
	$(BIN)/pdoc --docformat google --output-directory site tradax

clean:
	rm -rf $(VENV) $(AUDIT) build dist site .pytest_cache .ruff_cache .hypothesis src/*.egg-info
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

$(AUDIT)/.ready:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1 pip-licenses==5.5.5
	touch $@

$(VENV)/.ready: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(INSTALL) --editable '.[test]'
	touch $@
