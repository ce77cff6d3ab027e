# Every target sets up what it needs in .venv, once; setup.cfg says what that is.

PYTHON ?= python3
BIN = .venv/bin
RUFF = $(BIN)/ruff check --line-length 120 --select E,F,I,B,UP,W --ignore E731,E741,B905,UP031 tinynet tests demos

.PHONY: demo test bench lint pictures clean

demo: .venv/demos
	$(BIN)/python demos/$(or $(LESSON),*_digits.py)

test: .venv/test
	$(BIN)/python -m pytest --cov --cov-report=term

bench: .venv/bench
	$(BIN)/python -m tests.bench

lint: .venv/lint
	$(RUFF)

pictures: .venv/demos
	for lesson in demos/[0-9]*.py; do $(BIN)/python $$lesson || exit 1; done

clean:
	rm -rf .venv build dist pictures *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +

# .venv/demos, .venv/test, …: a marker for each extra that is installed
.venv/%: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
