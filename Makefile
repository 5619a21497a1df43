# make sweep           set up, then search configurations of tiny-llama on this machine (no GPU needed)
# make sweep MODEL=gpt-oss-120b [HARDWARE=b200 WORKLOAD=rag_8k_1k SLO=interactive BUDGET=20 STUDY=name ARGS='key=value']
.DEFAULT_GOAL := help
PYTHON ?= python3
MODEL ?= tiny-llama
VENV := .venv/.installed
OPENVINO := .venv-openvino/.installed
OVERRIDES = model=$(MODEL) $(if $(HARDWARE),hardware=$(HARDWARE)) $(if $(WORKLOAD),workload=$(WORKLOAD)) \
	$(if $(SLO),slo=$(SLO)) $(if $(BUDGET),search.budget_trials=$(BUDGET)) $(if $(STUDY),study=$(STUDY)) $(ARGS)

.PHONY: help setup sweep plan doctor show choose track test check docs bench-load bench-coverage bench-model bench-search crosscheck quality verify format lock clean
help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV) $(OPENVINO)  ## both environments: ours, and the embedded engine's own

$(VENV): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check -r requirements.lock
	.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(OPENVINO): requirements-openvino.lock
	$(PYTHON) -m venv .venv-openvino
	.venv-openvino/bin/pip install -q --disable-pip-version-check -r requirements-openvino.lock
	touch $@

.venv-openvino: $(OPENVINO)

sweep: $(VENV) $(if $(filter tiny-llama,$(MODEL)),$(OPENVINO))  ## search configurations of MODEL, every trial measured
	.venv/bin/tpw sweep $(OVERRIDES)

plan: $(VENV)  ## what a sweep would do, and cost
	.venv/bin/tpw plan $(OVERRIDES)

doctor: $(VENV)  ## what this machine lacks for a study, and what to do; without MODEL, for the GPUs that are here
	.venv/bin/tpw doctor $(if $(filter file,$(origin MODEL)),$(filter-out model=%,$(OVERRIDES)),$(OVERRIDES))

show: $(VENV)  ## the results of the latest study, from its rows
	.venv/bin/tpw show $(STUDY)

choose: $(VENV)  ## the config to serve with, from the rows of STUDY under SLO; ARGS='--tokens-per-s 50000 --profile diurnal'
	.venv/bin/tpw choose $(STUDY) $(if $(SLO),--slo $(SLO)) $(ARGS)

track: $(VENV)  ## what newer software gained or lost, over releases; ARGS='--before 0.24.0 --fail-on-regression 3%'
	.venv/bin/tpw track $(if $(STUDY),'$(STUDY)') $(if $(SLO),--slo $(SLO)) $(ARGS)

test: setup  ## all tests: those that measure this machine by themselves, the others on two cores
	.venv/bin/pytest -n 2 --dist worksteal -m 'not alone'
	.venv/bin/pytest -m alone

check: $(VENV)  ## format, lint, types, import layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: $(VENV)  ## regenerate the generated parts of README and docs from rows and code
	.venv/bin/python -m docs.generate

bench-load: $(VENV)  ## CPU cost of the load client per streamed chunk; JSON last
	.venv/bin/python -m bench.load $(ARGS)

bench-coverage: $(VENV)  ## how often the intervals hold the truth, by simulation (a minute or two); JSON last
	.venv/bin/python -m bench.coverage
	.venv/bin/python -m bench.coverage_components

bench-model: $(VENV)  ## error of the model on published measurements, and without each model; JSON last
	.venv/bin/python -m bench.model $(ARGS)

$(AIPERF): requirements-aiperf.lock
	$(PYTHON) -m venv .venv-aiperf
	.venv-aiperf/bin/pip install -q --disable-pip-version-check -r requirements-aiperf.lock
	touch $@

bench-search: $(VENV)  ## starts that each way of searching takes, against known truths (20 min; ARGS='--seeds 4' for a look); JSON last
	.venv/bin/python -m bench.search $(ARGS)

crosscheck: setup $(AIPERF)  ## our load client against AIPerf on one server (5 min, 1.2 GB once); JSON last
	.venv/bin/python -m bench.crosscheck $(ARGS)

quality: $(VENV)  ## answers of CANDIDATE= beside those of REFERENCE=: urls, YAML files of configs, bundles or trials
	.venv/bin/tpw quality candidate=$(CANDIDATE) reference=$(REFERENCE) $(OVERRIDES)

verify: $(VENV)  ## recompute every stored row from its evidence
	.venv/bin/tpw verify

format: $(VENV)  ## format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock:  ## resolve the locked versions anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		pyproject.toml --group dev -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--group openvino-engine -o requirements-openvino.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--group aiperf -o requirements-aiperf.lock

clean:  ## remove environments and caches, never results
	rm -rf .venv .venv-openvino .venv-aiperf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
