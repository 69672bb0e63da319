# make demo: a demonstration.  make test: every check.  make docs: the documentation site.
# Needs Python 3.11 or newer and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test mypy pyright docs changelog clean

demo: $(VENV)/.demo
	@$(BIN)/taskbridge demo

test: $(VENV)/.test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	@$(MAKE) --no-print-directory --jobs=2 mypy pyright
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

mypy: $(VENV)/.test
	$(BIN)/mypy

pyright: $(VENV)/.test
	$(BIN)/pyright --pythonpath $(BIN)/python

# Checks links, anchors, generated regions and code blocks, then builds the site into build/docs/site.
docs: $(VENV)/.test
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m pytest -q tests/docs
	$(BIN)/python docs/build_site.py

# Prints the section that the fragments in changelog.d make; VERSION=… writes it into CHANGELOG.md.
changelog: $(VENV)/.test
	$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version Unreleased)

clean:
	rm -rf $(VENV) .venv-airflow .venv-docling .venv-floors build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz .coverage

# Stamp files: packages are installed again when pyproject.toml changes.

$(VENV)/.pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml
	$(PIP) install --editable '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install --group test --group lint
	@touch $@

# Under ten minutes, on a computer that does nothing else: docs/performance.md.

.PHONY: bench

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

# What a store costs, 200,000 tasks in four processes with PostgreSQL and real HTTP, a million with SQLite; two hours.

.PHONY: bench-scale

bench-scale: $(VENV)/.bench
	$(BIN)/python -m benchmarks store processes million

$(VENV)/.bench: $(VENV)/.demo
	$(PIP) install --group bench
	@touch $@

# Coverage-guided fuzzing (tests/fuzz), five minutes per target; make fuzz SECONDS=3600 runs longer.

.PHONY: fuzz

SECONDS ?= 300

fuzz: $(VENV)/.test
	@for target in answer webhook text json config head; do \
	  echo "== $$target"; $(BIN)/python tests/fuzz $$target $(SECONDS) -verbosity=0 || exit 1; \
	done

# Kills the processes of stores in PostgreSQL at random moments (tests/store/kills), half a minute per seed.
# make test-kills SEEDS=1 FIRST=17 plays one seed again.

.PHONY: test-kills

SEEDS ?= 100
FIRST ?= 1
TASKS ?= 2000

test-kills: $(VENV)/.test
	PYTHONPATH=tests:. $(BIN)/python -m store.kills --seeds $(SEEDS) --first $(FIRST) --tasks $(TASKS)

# Some of the tests, with the oldest versions that pyproject.toml allows.

.PHONY: test-floors audit

FLOORS := .venv-floors
OLDEST := $(FLOORS)/bin/python -m pip --disable-pip-version-check --quiet

test-floors: $(FLOORS)/.test
	$(FLOORS)/bin/python -m pytest -q -n 2 --dist loadfile -p no:cacheprovider tests/core/test_client.py \
	  tests/core/test_config.py tests/core/test_flows.py tests/core/test_scheduler.py tests/conformance \
	  tests/faults/test_curl.py tests/faults/test_transports.py tests/faults/test_connections.py tests/lifecycle/test_submit.py \
	  tests/cli/test_get_wait_result.py tests/emulator/test_shell.py tests/store/test_store.py tests/core/test_secret_sources.py

$(FLOORS)/.test: $(VENV)/.test pyproject.toml
	$(BIN)/python -m venv --clear $(FLOORS)
	$(OLDEST) install --upgrade 'pip>=25.1'
	$(BIN)/python tests/packaging/floors.py >$(FLOORS)/floors.txt
	$(OLDEST) install --constraint $(FLOORS)/floors.txt --editable '.[all]' hypothesis pytest pytest-socket pytest-xdist \
	  svix trustme
	@touch $@

# Checks the installed packages against public vulnerability databases; needs a network.

audit: $(VENV)/.test
	$(PIP) install pip-audit
	$(BIN)/pip-audit --local --skip-editable

# Builds what a release consists of: the packages in dist/; the list of components (CycloneDX) and the notes in
# build/release/. The notes come from the fragments, or from the changelog once `make changelog VERSION=…` moved them there.
# The same commit gives the same bytes. PROJECT_URL=https://… puts the address of the repository into the package.

.PHONY: release

NOTES := build/release
VERSION_OF := $(BIN)/python -c 'import taskbridge; print(taskbridge.__version__)'
export PROJECT_URL
export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct 2>/dev/null || echo 1580601600)

release: $(VENV)/.release
	rm -rf dist $(NOTES)
	mkdir -p $(NOTES)
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/python -m venv --without-pip $(NOTES)/installed
	$(PIP) --python $(NOTES)/installed/bin/python install "$$(ls dist/*.whl)[all]"
	@# cyclonedx-py reads no dynamic version
	version=$$($(VERSION_OF)); sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml >$(NOTES)/installed/pyproject.toml
	$(BIN)/cyclonedx-py environment --pyproject $(NOTES)/installed/pyproject.toml --mc-type library --output-reproducible \
	  --output-file $(NOTES)/sbom.cdx.json $(NOTES)/installed/bin/python
	rm -rf $(NOTES)/installed
	version=$$($(VERSION_OF)); \
	if ls changelog.d/*.*.md >/dev/null 2>&1; then $(BIN)/towncrier build --draft --version "$$version"; \
	else awk -v title="## $$version " '/^## / { inside = index($$0, title) == 1 } inside' CHANGELOG.md; fi >$(NOTES)/notes.md

$(VENV)/.release: $(VENV)/.demo
	$(PIP) install --group release
	@touch $@

# The plugin for docling-serve against the real server: a download of 2 to 3 GB, five minutes, then two for the tests.

.PHONY: test-docling

DOCLING := .venv-docling
DOCLING_PLUGIN := docs/examples/taskbridge-docling

test-docling: $(VENV)/.test $(DOCLING)/.server
	cd $(DOCLING_PLUGIN) && PYTHONPATH=. DOCLING_PYTHON=$(abspath $(DOCLING)/bin/python) \
	  $(abspath $(BIN)/python) -m pytest -v real_server

$(DOCLING)/.server: $(DOCLING_PLUGIN)/real_server/requirements.txt $(DOCLING_PLUGIN)/real_server/requirements-no-deps.txt
	$(PYTHON) -m venv $(DOCLING)
	$(DOCLING)/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	$(DOCLING)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --requirement $(word 2,$^)
	@touch $@

# The provider for Airflow, in an environment of its own with Airflow: a download of 150 MB, then four minutes.

.PHONY: test-airflow

AIRFLOW := .venv-airflow
AIRFLOW_PACKAGE := integrations/taskbridge-airflow

test-airflow: $(AIRFLOW)/.test
	cd $(AIRFLOW_PACKAGE) && $(abspath $(AIRFLOW)/bin/python) -m mypy && $(abspath $(AIRFLOW)/bin/python) -m pytest -q

$(AIRFLOW)/.test: pyproject.toml $(AIRFLOW_PACKAGE)/pyproject.toml
	$(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=25.1'
	$(AIRFLOW)/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[curl,emulator,fsspec]' \
	  --editable $(AIRFLOW_PACKAGE) --group $(AIRFLOW_PACKAGE)/pyproject.toml:test
	@touch $@
