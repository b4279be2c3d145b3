# The commands of this project; README names `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-docker quick lint bench proto clean

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m node.netting.warm
	touch $@

demo: install
	$(BIN)/clearing demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

quick: install
	$(BIN)/pytest -m "not slow"

test: lint
	$(BIN)/pytest

test-docker: install
	docker/test.sh

bench: install
	test -x benchmarks/peers/.venv/bin/python || $(BIN)/python -m benchmarks peers
	$(BIN)/python -m benchmarks all

proto: install
	$(BIN)/python -m node.pb_generate

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
