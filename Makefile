# The verbs. Each sets up what it needs, once, inside this folder.
.PHONY: help run sam-local database test e2e test-sam-local fuzz clients check format openapi lint-openapi bench bench-list build deploy lock
.DEFAULT_GOAL := help

PORT ?= 8000
DATA ?= .local

# Python 3.11 or newer: python3 where it is, else the first of these.
first_of = $(shell for python in $(1); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTHON ?= $(call first_of,python3 python3.13 python3.12 python3.11)
# The functions' runtime: needed to build them; where it is installed, the tests run on it too.
RUNTIME ?= $(call first_of,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))

# The SAM CLI: the one on the PATH, else one of our own. infra/layer/Makefile is told of the runtime by the environment.
SAM ?= $(or $(shell command -v sam),$(CURDIR)/.venv-sam/bin/sam)
sam_environment := $(if $(RUNTIME),RUNTIME=$(RUNTIME))
sam_installed := $(if $(findstring $(CURDIR)/.venv-sam,$(SAM)),.venv-sam/installed)

run_pins := infra/layer/requirements.txt infra/local/requirements.txt
all_pins := $(run_pins) tests/requirements.txt
peers := tests/benchmarks/peers
bench_pins := $(all_pins) tests/benchmarks/requirements.txt $(peers)/fastapi_mangum/requirements.txt

behaviour := tests/test_create_incident.py tests/test_read_incidents.py tests/test_update_incident.py

help:  ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 22

run: .venv/for-run  ## serve the API on http://localhost:8000 (PORT=8000 DATA=.local)
	@.venv/bin/python -m infra.local --port $(PORT) --data $(DATA)

sam-local: runtime .venv/for-run $(sam_installed)  ## the same in Lambda's containers, under sam local start-api (needs Docker)
	@$(sam_environment) .venv/bin/python -m infra.local.sam --sam $(SAM) --port $(PORT) --data $(DATA)

database: .venv/for-run  ## the database alone, for a sam local start-api of your own
	@.venv/bin/python -m infra.local.sam --sam "" --data $(DATA)

test: .venv/for-all $(if $(RUNTIME),.venv-3.13/for-all)  ## run all tests, where Python 3.13 is installed on that too
	@$(if $(RUNTIME),.venv-3.13/bin/pytest --hypothesis-profile=brief -p no:cacheprovider >.venv-3.13/log 2>&1 & runtime=$$!;) \
	.venv/bin/pytest; here=$$?; \
	$(if $(RUNTIME),wait $$runtime; there=$$?; cat .venv-3.13/log; [ $$there -eq 0 ] &&) [ $$here -eq 0 ]

fuzz: .venv/for-all  ## look for a request, a fault or a list that breaks a rule, for some ten minutes
	.venv/bin/pytest --hypothesis-profile=fuzz --hypothesis-show-statistics tests/test_fuzz.py tests/test_events.py tests/test_faults.py tests/test_paging.py

# What the SAM CLI says is shown.
e2e: runtime .venv-3.13/for-all .venv-aws/installed $(sam_installed)  ## deploy to an emulated AWS and test the API and the deployment there
	$(sam_environment) .venv-3.13/bin/pytest -s --on aws $(behaviour) tests/e2e/test_aws.py

test-sam-local: runtime .venv/for-all $(sam_installed)  ## test the API under sam local start-api (needs Docker)
	$(sam_environment) .venv/bin/pytest -s --on sam-local $(behaviour) tests/e2e/test_sam_local.py

clients: .venv/for-all .venv-clients/installed  ## try the contract with other people's tools, and a client that is generated from it
	.venv/bin/pytest tests/test_clients.py

check: .venv-bench/for-all .venv-checkov/installed $(sam_installed)  ## lint, format, types, templates and their security
	.venv-bench/bin/ruff check
	.venv-bench/bin/ruff format --check
	.venv-bench/bin/mypy
	.venv-bench/bin/cfn-lint template.yaml infra/monitoring.yaml
	$(SAM) validate --lint
	.venv-checkov/bin/checkov --quiet --compact --skip-download --framework cloudformation --file template.yaml infra/monitoring.yaml

format: .venv/for-all  ## lay out the code and mend what ruff can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

openapi: .venv/for-run  ## write infra/openapi.json anew, after a change of the contract
	.venv/bin/python -m infra.openapi

lint-openapi:  ## lint the contract with Redocly's and Spectral's rules (needs Node.js)
	npx --yes @redocly/cli@2.77.0 lint --extends=recommended-strict infra/openapi.json
	npx --yes @stoplight/spectral-cli@6.16.3 lint --ruleset tests/clients/spectral.json --fail-severity hint infra/openapi.json

build: runtime $(sam_installed)  ## build for sam local; CONFIG=prod builds for AWS
	$(sam_environment) $(SAM) build --config-env $(or $(CONFIG),default)

# samconfig.toml's own overrides give way to any on the command line.
overrides = $(if $(PARAMETERS),--parameter-overrides Architecture=arm64 $(PARAMETERS))

# The SAM CLI does not read AWS_REGION, as other tools do: it would deploy to another region, or to none.
region = $(if $(AWS_REGION),--region $(AWS_REGION))
stack = $(if $(STACK),--stack-name $(STACK))

deploy: runtime $(sam_installed)  ## build and deploy to AWS as samconfig.toml's prod says (PARAMETERS="LogDays=90" STACK=name)
	$(sam_environment) $(SAM) build --config-env prod $(overrides)
	$(sam_environment) $(SAM) deploy --config-env prod $(region) $(stack) $(overrides)

bench: runtime bench-list .venv-bench/for-all $(sam_installed)  ## measure the functions beside what one would build instead, and the list (Linux)
	$(sam_environment) $(SAM) build --build-dir .aws-sam/bench/functions --parameter-overrides Architecture=$(if $(filter aarch64,$(shell uname -m)),arm64,x86_64)
	PATH="$(dir $(shell command -v $(RUNTIME))):$$PATH" $(SAM) build --cached --template $(peers)/template.yaml --build-dir .aws-sam/bench/peers
	.venv-bench/bin/python -m tests.benchmarks.speed

bench-list: .venv-bench/for-all  ## measure what a page of the list costs, from 1,000 incidents to 100,000
	PYTHONPATH=functions .venv-bench/bin/python -m tests.benchmarks.paging

.PHONY: runtime
runtime:
	@[ -n "$(RUNTIME)" ] || { echo "Python 3.13, the functions' runtime, is needed; install it, or name it: make RUNTIME=/path/to/python3.13"; exit 1; }

# ---- environments: made once, and again when the pins change

.venv/for-run: $(run_pins)
	$(call install,.venv,$(PYTHON),$^)

.venv/for-all: $(all_pins)
	$(call install,.venv,$(PYTHON),$^)
	@touch .venv/for-run

.venv-3.13/for-all: $(all_pins)
	$(call install,.venv-3.13,$(RUNTIME),$^)

.venv-bench/for-all: $(bench_pins)
	$(call install,.venv-bench,$(or $(RUNTIME),$(PYTHON)),$^)

.venv-sam/installed: infra/sam/requirements.txt
	$(call install,.venv-sam,$(PYTHON),$^)

.venv-aws/installed: tests/e2e/requirements.txt
	$(call install,.venv-aws,$(RUNTIME),$^)

.venv-checkov/installed: infra/checkov/requirements.txt
	$(call install,.venv-checkov,$(PYTHON),$^)

.venv-clients/installed: tests/clients/requirements.txt
	$(call install,.venv-clients,$(PYTHON),$^)

define install
@[ -n "$(2)" ] || { echo "Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python"; exit 1; }
@echo "Setting up $(1), this once ..."
@$(2) -m venv $(1) || { echo "Python cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
@# Without looking for dependencies: the pins are all there is, and pip does not find them for a package with extras.
@$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps $(addprefix -r ,$(3))
@touch $@
endef

# ---- pins: run `make lock` after a change of pyproject.toml's dependencies

compile = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade
# What these files pin, the next one takes as it is and does not repeat.
beyond = $(addprefix --constraint ,$(1)) $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' $(1))

lock: .venv/for-all  ## pin the newest versions that pyproject.toml allows
	.venv/bin/pip install --quiet --disable-pip-version-check uv
	$(compile) pyproject.toml --output-file infra/layer/requirements.txt
	$(compile) pyproject.toml --group local $(call beyond,infra/layer/requirements.txt) --output-file infra/local/requirements.txt
	$(compile) pyproject.toml --group dev $(call beyond,$(run_pins)) --output-file tests/requirements.txt
	$(compile) pyproject.toml --group bench $(call beyond,$(all_pins)) --output-file tests/benchmarks/requirements.txt
	$(compile) --group fastapi-mangum --constraint infra/layer/requirements.txt --output-file $(peers)/fastapi_mangum/requirements.txt
	$(compile) --group bare --constraint infra/layer/requirements.txt --output-file $(peers)/bare/requirements.txt
	$(compile) --group sam --output-file infra/sam/requirements.txt
	$(compile) --group checkov --output-file infra/checkov/requirements.txt
	$(compile) --group aws --output-file tests/e2e/requirements.txt
	$(compile) --group clients --output-file tests/clients/requirements.txt
