# The verbs. Each sets up what it needs, once, inside this folder.
.PHONY: help run sam-local database test test-runtime e2e test-sam-local fuzz mutants check format openapi lint-openapi \
	bench bench-check bench-list build deploy key keys revoke telegram-webhook lock runtime
.DEFAULT_GOAL := help

PORT ?= 8000
DATA ?= .local
CONFIG ?= default

# Python 3.11 or newer: python3 where it is, else the first of these.
first_of = $(shell for python in $(1); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTHON ?= $(call first_of,python3 python3.13 python3.12 python3.11)
# The functions' runtime, which builds them.
RUNTIME ?= $(call first_of,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))

# What Python compiles is kept, whatever the shell says: without it, every command takes a second longer.
unexport PYTHONDONTWRITEBYTECODE

# Programs are called as modules: their scripts contain the path of this folder, and break when it is moved.
python := .venv/bin/python
runtime_python := .venv-runtime/bin/python

# The SAM CLI: the one on the PATH, else one of our own.
SAM ?= $(if $(shell command -v sam),sam,.venv-sam/bin/python -m samcli)
sam_installed := $(if $(findstring .venv-sam/,$(SAM)),.venv-sam/installed)
# infra/layer/Makefile and functions/Makefile, which `sam build` starts, read RUNTIME.
build_environment := $(if $(RUNTIME),RUNTIME="$(RUNTIME)")

behaviour := tests/test_create_incident.py tests/test_read_incidents.py tests/test_update_incident.py

help:  ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 22

run: .venv/for-run  ## serve the API on http://localhost:8000 (PORT=8000 DATA=.local PARAMETERS="TelegramChats=-1001234567890")
	@$(python) -m infra.local --port $(PORT) --data "$(DATA)" --parameters "$$PARAMETERS"

sam-local: runtime .venv/for-run $(sam_installed)  ## the same in Lambda's containers, under sam local start-api (needs Docker)
	@$(build_environment) $(python) -m infra.local.sam --sam "$(SAM)" --port $(PORT) --data "$(DATA)"

database: .venv/for-run  ## the database alone, for a sam local start-api of your own
	@$(python) -m infra.local.sam --sam "" --data "$(DATA)"

# Three processes for two cores: one of them often waits. In the order of the files' names, which have the short ones last.
pytest := -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Coverage in two steps: --fail-under in the first one would print what it has deleted, the results of pytest's processes.
# Not 100: one branch (a task is cancelled) depends on how the threads run.
test: .venv/for-all  ## run the tests, in about a minute, and measure how much of the functions they cover
	$(python) -m slipcover --source functions --branch --json --out .coverage.json $(pytest) -m "not slow"
	$(python) -m slipcover --merge .coverage.json --out .coverage.json --branch --skip-covered --fail-under 99.9

test-runtime: runtime .venv-runtime/for-all  ## run every test, with more random inputs, on Python 3.13, the functions' runtime
	$(runtime_python) $(pytest) --hypothesis-profile=thorough

fuzz: .venv/for-all  ## look for a request, a fault or a list that breaks a rule, for some ten minutes
	$(python) -m pytest --numprocesses 3 --hypothesis-profile=fuzz -m hypothesis

# mutmut works in a folder of its own, which has the project's files as links. The next run goes on with what has not been judged.
mutants: .venv/for-mutants  ## put small bugs into the functions and show which no test notices, in an hour or two (MUTANTS="store.*")
	@mkdir -p .mutants/mutants
	@ln -sfn ../functions .mutants/src
	@ln -sfn src .mutants/mutants/functions
	@for each in infra tests template.yaml samconfig.toml pyproject.toml Makefile README.md README.ru.md; do ln -sfn ../$$each .mutants/$$each; done
	cd .mutants && ../$(python) -m mutmut run $(MUTANTS)
	cd .mutants && ../$(python) -m mutmut results

# The SAM CLI's output is shown.
e2e: runtime .venv/for-all .venv-aws/installed $(sam_installed)  ## deploy to an emulated AWS and test the API and the deployment there
	$(build_environment) $(python) -m pytest --capture=no --on aws $(behaviour) tests/e2e/test_integrations.py tests/e2e/test_aws.py

test-sam-local: runtime .venv/for-all $(sam_installed)  ## test the API under sam local start-api (needs Docker)
	$(build_environment) $(python) -m pytest --capture=no --on sam-local $(behaviour) tests/e2e/test_sam_local.py

check: .venv/for-all .venv-checkov/installed $(sam_installed)  ## lint, format, types, templates and their security
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -c 'from cfnlint.runner import main; main()' template.yaml infra/monitoring.yaml
	$(SAM) validate --lint
	.venv-checkov/bin/python -m checkov.main --quiet --compact --skip-download --framework cloudformation --file template.yaml infra/monitoring.yaml

format: .venv/for-all  ## format the code and fix what ruff can fix
	$(python) -m ruff check --fix
	$(python) -m ruff format

openapi: .venv/for-run  ## generate infra/openapi.json, after a change of the contract
	$(python) -m infra.openapi

lint-openapi:  ## lint the contract with Redocly's and Spectral's rules (needs Node.js)
	npx --yes @redocly/cli@2.77.0 lint --extends=recommended-strict infra/openapi.json
	npx --yes @stoplight/spectral-cli@6.16.3 lint --ruleset tests/clients/spectral.json --fail-severity hint infra/openapi.json

build: runtime $(sam_installed)  ## build for sam local; CONFIG=prod builds for AWS
	$(build_environment) $(SAM) build --config-env $(CONFIG)

# samconfig.toml's own overrides give way to any on the command line.
overrides = $(if $(PARAMETERS),--parameter-overrides Architecture=arm64 $(PARAMETERS))

# The SAM CLI does not read AWS_REGION, as other tools do: it would deploy to another region, or to none.
region = $(if $(AWS_REGION),--region $(AWS_REGION))
stack = $(if $(STACK),--stack-name $(STACK))

deploy: runtime $(sam_installed)  ## build and deploy to AWS as samconfig.toml's prod says (PARAMETERS="LogDays=90" STACK=name)
	$(build_environment) $(SAM) build --config-env prod $(overrides)
	$(build_environment) $(SAM) deploy --config-env prod $(region) $(stack) $(overrides)

# Variables of the command line reach the shell by its environment, whatever characters they have.
access_keys = @$(python) -m infra.keys --stack "$${STACK:-incident-api}"

key: .venv/for-run  ## make an access key for the deployed API: NAME=partner-x ROLE=reporter (SOURCE=partner STACK=name)
	$(access_keys) create --name "$$NAME" --role "$$ROLE" --source "$$SOURCE"

keys: .venv/for-run  ## list the access keys
	$(access_keys) list

revoke: .venv/for-run  ## revoke every access key of a name: NAME=partner-x (CREATED=time, for one of them)
	$(access_keys) revoke --name "$$NAME" --created "$$CREATED"

telegram-webhook: .venv/for-run  ## print how to connect a Telegram bot with the deployed API (STACK=name)
	@PYTHONPATH=functions $(python) -m infra.telegram --stack "$${STACK:-incident-api}"

bench: bench-builds bench-list  ## measure the functions beside what one would build instead, and the list (Linux)
	$(runtime_python) -m tests.benchmarks.speed

bench-check: bench-builds  ## measure the functions; fail where they are worse than tests/benchmarks/README.md says
	$(runtime_python) -m tests.benchmarks.speed --check

bench-list: runtime .venv-runtime/for-all  ## measure what a page of the list costs, from 1,000 incidents to 100,000
	PYTHONPATH=functions $(runtime_python) -m tests.benchmarks.paging

.PHONY: bench-builds
bench-builds: runtime .venv-runtime/for-all $(sam_installed)
	$(build_environment) $(SAM) build --build-dir .aws-sam/bench/functions --parameter-overrides Architecture=$(if $(filter aarch64,$(shell uname -m)),arm64,x86_64)
	PATH="$$PWD/.venv-runtime/bin:$$PATH" $(SAM) build --cached --template $(peers)/template.yaml --build-dir .aws-sam/bench/peers

runtime:
	@[ -n "$(RUNTIME)" ] || { echo "Python 3.13, the functions' runtime, is needed; install it, or name it: make RUNTIME=/path/to/python3.13"; exit 1; }

# ---- environments: made once, and again when the pins change

run_pins := infra/layer/requirements.txt infra/local/requirements.txt
all_pins := $(run_pins) tests/requirements.txt

.venv/for-run: $(run_pins)
	$(call install,$(PYTHON))

.venv/for-all: $(all_pins)
	$(call install,$(PYTHON))
	@touch .venv/for-run

.venv/for-mutants: tests/mutants/requirements.txt | .venv/for-all
	$(call install,$(PYTHON))

.venv-runtime/for-all: $(all_pins)
	$(call install,$(RUNTIME))

.venv-sam/installed: infra/sam/requirements.txt
	$(call install,$(PYTHON))

.venv-checkov/installed: infra/checkov/requirements.txt
	$(call install,$(PYTHON))

# The emulated AWS runs the functions on its own Python.
.venv-aws/installed: tests/e2e/requirements.txt
	$(call install,$(RUNTIME))

define install
@[ -n "$(1)" ] || { echo "Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python"; exit 1; }
@echo "Setting up $(@D), this once ..." >&2
@"$(1)" -m venv $(@D) || { echo "Python cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
@# Without looking for dependencies: the pins are all there is, and pip does not find them for a package with extras.
@# Without compiling: Python compiles what it imports, a small part.
@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps $(addprefix -r ,$^)
@touch $@
endef

# ---- pins

peers := tests/benchmarks/peers
compile = $(python) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	$(if $(UPGRADE),--upgrade)
# What these files pin, the next one takes as it is and does not repeat.
constraints = $(addprefix --constraint ,$(1)) $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' $(1))

lock: .venv/for-all  ## pin what pyproject.toml asks for; UPGRADE=1 takes the newest versions that it allows
	$(python) -m pip install --quiet --disable-pip-version-check uv
	$(compile) pyproject.toml --output-file infra/layer/requirements.txt
	$(compile) pyproject.toml --group local $(call constraints,infra/layer/requirements.txt) --output-file infra/local/requirements.txt
# aiogram asks for a pydantic older than the functions'. Its models work with theirs, as the tests show.
	echo pydantic | $(compile) pyproject.toml --group dev --override /dev/stdin $(call constraints,$(run_pins)) --output-file tests/requirements.txt
	$(compile) --group mutants $(call constraints,$(all_pins)) --output-file tests/mutants/requirements.txt
	$(compile) --group fastapi-mangum $(addprefix --constraint ,$(all_pins)) --output-file $(peers)/fastapi_mangum/requirements.txt
	$(compile) --group bare $(addprefix --constraint ,$(all_pins)) --output-file $(peers)/bare/requirements.txt
	$(compile) --group sam --output-file infra/sam/requirements.txt
	$(compile) --group checkov --output-file infra/checkov/requirements.txt
	$(compile) --group aws --output-file tests/e2e/requirements.txt
