# Every target installs what it needs into .venv, once, as setup.cfg lists it.

PYTHON ?= python3
BIN = .venv/bin
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile
RUFF = $(BIN)/ruff check --line-length 120 --select E,F,I,B,UP,W --ignore E731,E741,B905,UP031 \
    tinynet tests demos

.PHONY: demo test test-all bench lint format pictures showing dist clean

demo: .venv/demos
	$(BIN)/python demos/$(or $(LESSON),*_digits.py)

# without the slow tests
test: .venv/test
	$(PYTEST) -m "not slow"

# every test, and the coverage that setup.cfg asks for
test-all: .venv/test
	$(PYTEST) --cov --cov-report=term

bench: .venv/bench
	$(BIN)/python -m tests.bench

# style and format; types of the core, strictly, and of the README's tour as a user's editor sees it; then line counts
lint: .venv/lint
	$(RUFF)
	$(BIN)/autopep8 --recursive --diff --exit-code tinynet tests demos
	$(BIN)/python -m mypy --strict tinynet/value.py tinynet/graph.py tinynet/tensors/core.py
	$(BIN)/python -m mypy -c "$$(sed -n '/^```python/,/^```/{/^```/d;p}' README.md)"
	$(BIN)/python -m tests.lines

# formats as `make lint` checks
format: .venv/lint
	$(BIN)/autopep8 --recursive --in-place tinynet tests demos

pictures: .venv/demos
	for lesson in demos/[0-9]*.py; do $(BIN)/python $$lesson || exit 1; done

# the pictures of the README; needs Chromium for screenshots of the pages
showing: .venv/test
	$(BIN)/python -m tests.viz.showing

# The packages that users install, each in an environment of its own: the tour, and the tests that need neither optional
# packages nor a system `dot`.
dist: .venv/dist
	rm -rf dist build/alone
	$(BIN)/python -m build --outdir dist >/dev/null
	mkdir -p build/alone && cp -r README.md CONTRIBUTING.md setup.cfg docs tests build/alone
	for package in dist/*.whl dist/*.tar.gz; do \
	    $(PYTHON) -m venv --clear build/clean && \
	    build/clean/bin/python -m pip install --quiet --disable-pip-version-check $$package pytest hypothesis && \
	    (cd build/alone && PATH=/nowhere ../clean/bin/python -m pytest tests/test_readme.py -k tour) || exit 1; \
	done
	cd build/alone && PATH=/nowhere ../clean/bin/python -m pytest -m "not slow" \
	    tests/tensors tests/data tests/train/test_fit.py tests/viz/test_explanations.py tests/viz/test_drawings.py \
	    $(addprefix tests/test_,$(addsuffix .py,value optim datasets pytorch_script))

clean:
	rm -rf .venv build dist pictures *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +

# .venv/demos, .venv/test, …: a marker for each extra that is installed
.venv/%: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
