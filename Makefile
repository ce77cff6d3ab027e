# Every target sets up what it needs in .venv, once; setup.cfg says what that is.

PYTHON ?= python3
BIN = .venv/bin
RUFF = $(BIN)/ruff check --line-length 120 --select E,F,I,B,UP,W --ignore E731,E741,B905,UP031 \
    --per-file-ignores '*.pyi:F821' tinynet tests demos

.PHONY: demo test bench lint pictures showing dist clean

demo: .venv/demos
	$(BIN)/python demos/$(or $(LESSON),*_digits.py)

test: .venv/test
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --cov --cov-report=term

bench: .venv/bench
	$(BIN)/python -m tests.bench

# style; then the types that editors are told: do they fit the code, and the tour of the README?
lint: .venv/lint
	$(RUFF)
	$(BIN)/python -m mypy.stubtest tinynet.value tinynet.tensors --concise --ignore-missing-stub \
	    --mypy-config-file setup.cfg
	$(BIN)/python -m mypy -c "$$(sed -n '/^```python/,/^```/{/^```/d;p}' README.md)"

pictures: .venv/demos
	for lesson in demos/[0-9]*.py; do $(BIN)/python $$lesson || exit 1; done

# the pictures of the README; needs Chromium, which photographs the pages
showing: .venv/test
	$(BIN)/python -m tests.viz.showing

# What users install, each in an environment of its own: the tour, and the tests that do without the optional packages
# and without a system `dot`.
dist: .venv/dist
	rm -rf dist build/alone
	$(BIN)/python -m build --outdir dist >/dev/null
	mkdir -p build/alone && cp -r README.md setup.cfg tests build/alone
	for package in dist/*.whl dist/*.tar.gz; do \
	    $(PYTHON) -m venv --clear build/clean && \
	    build/clean/bin/python -m pip install --quiet --disable-pip-version-check $$package pytest hypothesis && \
	    (cd build/alone && PATH=/nowhere ../clean/bin/python -m pytest tests/test_readme.py -k tour) || exit 1; \
	done
	cd build/alone && PATH=/nowhere ../clean/bin/python -m pytest \
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
