# Every target makes the .venv it needs; the stamps make the second run fast.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
CASE ?= pairwise
ROUNDS ?= 10000
SEED ?= 0
BIN := .venv/bin
PACKAGES := secagg dp protocols recsys benchmarks
SOURCES := tests/test_import_arrows.py tests/test_one_way_of_writing.py # tests that only read the source
PIN := pyproject.toml constraints.txt requirements/pins.txt
# All versions, also those of what builds: pip hands them to the environments it builds in (by the second name, from 25.3 on).
export PIP_CONSTRAINT := requirements/pins.txt
export PIP_BUILD_CONSTRAINT := requirements/pins.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE # what is compiled is kept, for the next worker and the next run

# All that numba compiles: once, and not by each worker, or while a demo runs.
COMPILED := secagg.crypto.bits.loops, secagg.crypto.bits.narrow, secagg.crypto.lattice.sampling, secagg.crypto.two, \
	secagg.rounding.loops, recsys.models.private_pairs
COMPILE = $(BIN)/python -c 'import $(COMPILED)'

.DEFAULT_GOAL := help
.PHONY: help demo test test-long simulate check coverage mutants bench bench-check docs locks dist smoke clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/demo ## the main job, on this machine
	$(BIN)/secagg demo

test: .venv/dev ## the tests, but for the long ones
	$(BIN)/pytest -n 3 --dist worksteal $(SOURCES:%=--ignore=%)

test-long: .venv/dev .venv/docs ## all the tests, with many more random examples
	SECAGG_HYPOTHESIS=long $(BIN)/pytest -n 2 -m ""

simulate: .venv/dev ## random deployments with faults and liars, before a release: make simulate ROUNDS=10000 SEED=0
	$(BIN)/python -m tests.simulator --rounds $(ROUNDS) --seed $(SEED) --jobs 2

check: .venv/dev ## lint, format, types, what imports and writes, doctests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/pytest -q $(SOURCES)
	$(BIN)/pytest -q --doctest-modules --doctest-glob="*.md" $(PACKAGES) README.md docs

coverage: .venv/dev ## the tests again, with branch coverage
	$(BIN)/pytest -n 2 --cov

mutants: .venv/dev ## take each security check away in turn: some test must fail (an hour, goes on where it was)
	$(BIN)/python -m tests.mutants

bench: .venv/dev ## one benchmark: make bench CASE=pairwise
	$(BIN)/secagg bench $(CASE) --json

bench-check: .venv/dev ## ratios of speed beside those that are committed
	$(BIN)/python -m benchmarks.check

docs: .venv/docs ## the documentation site, in build/site: every warning is an error
	$(BIN)/sphinx-build -q -E -W --keep-going -c docs -d build/doctrees . build/site

locks: .venv/dev ## write requirements/ anew, before a release: make locks KEEP=--keep leaves versions as they are
	$(BIN)/python requirements/renew.py $(KEEP)

dist: .venv/build ## the distributions, in dist: a source archive, and the wheel that is built from it
	rm -rf dist
	.venv/build/bin/hatchling build -t sdist
	.venv/build/bin/python -m pip wheel -q --no-deps --no-build-isolation -w dist dist/*.tar.gz

smoke: ## install the wheel in dist by itself, somewhere else, and use it
	sh tests/e2e/wheel_alone.sh "$(PYTHON)" dist/*.whl requirements/pins.txt

clean: ## remove .venv, caches and build products
	rm -rf .venv .coverage* .hypothesis .mutants .mypy_cache .pytest_cache .ruff_cache build dist
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/build: $(PIN) requirements/build.lock | .venv/bin/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install -q --require-hashes --no-deps -r requirements/build.lock
	@touch $@

.venv/demo: $(PIN) | .venv/bin/python
	@echo "installing torch, opacus, scipy and others into .venv: minutes, and 1.6 GB (5 GB where torch comes with CUDA)"
	$(BIN)/python -m pip install -q -e '.[recsys]' -c constraints.txt
	$(COMPILE)
	@touch $@

.venv/dev: $(PIN) | .venv/bin/python
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	$(COMPILE)
	@touch .venv/demo $@

.venv/docs: $(PIN) | .venv/bin/python
	$(BIN)/python -m pip install -q -e '.[docs]' -c constraints.txt
	@touch $@
