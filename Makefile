# The verbs. Each sets up what it needs, once, inside this folder.
.DEFAULT_GOAL := help
.PHONY: help run sam-local database test test-runtime e2e test-sam-local fuzz mutants check format openapi lint-openapi \
	bench bench-check bench-list bench-builds build deploy doctor smoke key keys copy-keys revoke telegram-webhook telegram-token table-stream import export erase lock runtime

PORT ?= 8000
DATA ?= .local
CONFIG ?= default

# Python 3.11 or newer to run and test; the functions' runtime to build.
first_of = $(shell for python in $(1); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTHON ?= $(call first_of,python3 python3.13 python3.12 python3.11)
RUNTIME ?= $(call first_of,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))

# Keep byte code, whatever the shell says: without it, every command takes a second longer.
unexport PYTHONDONTWRITEBYTECODE

# Programs are called as modules: their scripts contain the path of this folder, and break when it is moved.
python := .venv/bin/python
runtime_python := .venv-runtime/bin/python
SAM ?= $(if $(shell command -v sam),sam,.venv-sam/bin/python -m samcli)
sam_installed := $(if $(findstring .venv-sam/,$(SAM)),.venv-sam/installed)
# Read by infra/layer/Makefile and functions/Makefile, which `sam build` calls.
build_environment := $(if $(RUNTIME),RUNTIME="$(RUNTIME)")

help:  ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

run: .venv/for-run  ## serve the API on http://localhost:8000 (PORT=8000 DATA=.local PARAMETERS="TelegramChats=-1001234567890")
	@$(python) -m infra.local --port $(PORT) --data "$(DATA)" --parameters "$$PARAMETERS"

sam-local: runtime .venv/for-run $(sam_installed)  ## the same in Lambda's containers, under sam local start-api (needs Docker)
	@$(build_environment) $(python) -m infra.local.sam --sam "$(SAM)" --port $(PORT) --data "$(DATA)"

database: .venv/for-run  ## the database alone, for a sam local start-api of your own
	@$(python) -m infra.local.sam --sam "" --data "$(DATA)"

# ---- tests

# Three processes for two cores: one of them often waits. In the order of the files' names, which have the short ones last.
pytest := -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
behaviour := tests/test_create_incident.py tests/test_read_incidents.py tests/test_update_incident.py

test: .venv/for-all  ## run the tests, and measure how much of the functions they cover
	$(python) $(pytest) -m "not slow" --cov --cov-report=term:skip-covered

test-runtime: runtime .venv-runtime/for-all  ## run every test, with more random inputs, on the functions' runtime
	$(runtime_python) $(pytest) --hypothesis-profile=thorough

fuzz: .venv/for-all  ## search for a request, a fault or a list that breaks a rule, for some ten minutes
	$(python) -m pytest --numprocesses 3 --hypothesis-profile=fuzz -m hypothesis

# mutmut works in a folder of its own, which links to the project's files. The next run judges what is left.
mutants: .venv/for-all  ## put small bugs into the functions and show which no test notices, in an hour or two (MUTANTS="store.*")
	@mkdir -p .mutants/mutants
	@ln -sfn ../functions .mutants/src && ln -sfn src .mutants/mutants/functions
	@for each in infra tests template.yaml samconfig.toml pyproject.toml Makefile README.md README.ru.md; do ln -sfn ../$$each .mutants/$$each; done
	cd .mutants && ../$(python) -m mutmut run $(MUTANTS) && ../$(python) -m mutmut results

e2e: runtime .venv/for-all .venv-sam/installed  ## deploy to an emulated AWS and test the API and the deployment there
	$(build_environment) $(python) -m pytest --capture=no --on aws $(behaviour) tests/e2e/test_telling.py tests/e2e/test_integrations.py tests/e2e/test_account.py tests/e2e/test_aws.py

test-sam-local: runtime .venv/for-all $(sam_installed)  ## test the API under sam local start-api (needs Docker)
	$(build_environment) $(python) -m pytest --capture=no --on sam-local $(behaviour) tests/e2e/test_sam_local.py

# ---- checks

check: .venv/for-all  ## lint, format, types, templates
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -c 'from cfnlint.runner import main; main()' template.yaml infra/monitoring.yaml

format: .venv/for-all  ## format the code and fix what ruff can fix
	$(python) -m ruff check --fix && $(python) -m ruff format

openapi: .venv/for-run  ## generate infra/openapi.json, after a change of the contract
	$(python) -m infra.openapi

lint-openapi:  ## lint the contract with Redocly's and Spectral's rules (needs Node.js)
	npx --yes @redocly/cli@2.77.0 lint --extends=recommended-strict infra/openapi.json
	npx --yes @stoplight/spectral-cli@6.16.3 lint --ruleset tests/clients/spectral.json --fail-severity hint infra/openapi.json

# ---- AWS

# samconfig.toml's own overrides give way to any on the command line. The SAM CLI does not read AWS_REGION, and takes an empty
# value, or one with spaces, only in quotation marks.
with_overrides = set -- $(if $(PARAMETERS),Architecture=arm64 $(PARAMETERS)); \
	for each; do set -- "$$@" "$${each%%=*}=\"$${each\#*=}\""; shift; done; \
	$(build_environment) $(1) $${1:+--parameter-overrides} "$$@"
where = $(if $(AWS_REGION),--region $(AWS_REGION)) $(if $(STACK),--stack-name $(STACK))
how = $(if $(TAGS),--tags "$$TAGS") $(if $(filter no,$(CONFIRM)),--no-confirm-changeset)

build: runtime $(sam_installed)  ## build for sam local; CONFIG=prod builds for AWS
	$(build_environment) $(SAM) build --config-env $(CONFIG)

deploy: runtime .venv/for-run $(sam_installed)  ## build and deploy to AWS as samconfig.toml's prod says (PARAMETERS="LogDays=90" STACK=name)
	@$(python) -m infra.doctor --parameters "$$PARAMETERS"
	$(call with_overrides,$(SAM) build --config-env prod)
	$(call with_overrides,$(SAM) deploy --config-env prod $(where) $(how))

doctor: .venv/for-run $(sam_installed)  ## say what a deployment needs and what is there (PARAMETERS="…" STACK=name)
	@$(python) -m infra.doctor --parameters "$$PARAMETERS" --stack "$${STACK:-incident-api}" --runtime "$(RUNTIME)" --sam "$(SAM)"

smoke: .venv/for-run  ## run the first ten minutes of infra/README.md against the deployed API (STACK=name)
	@$(python) -m infra.smoke --stack "$${STACK:-incident-api}" --url "$$API"

# Variables of the command line reach the shell through its environment, whatever characters they have.
access_keys = @$(python) -m infra.keys --stack "$${STACK:-incident-api}"

key: .venv/for-run  ## make an access key for the deployed API: NAME=partner-x ROLE=reporter (SOURCE=partner DAYS=90 STACK=name)
	$(access_keys) create --name "$$NAME" --role "$$ROLE" --source "$$SOURCE" --days "$$DAYS"

keys: .venv/for-run  ## list the access keys
	$(access_keys) list

revoke: .venv/for-run  ## revoke every access key of a name: NAME=partner-x (CREATED=time, for one of them; YES=1 does not ask)
	$(access_keys) revoke --name "$$NAME" --created "$$CREATED" $(if $(filter 1,$(YES)),--yes)

copy-keys: .venv/for-run  ## accept another stack's access keys here, too: FROM=<its output KeysTableName> (STACK=name)
	$(access_keys) copy --table "$$FROM"

telegram-webhook: .venv/for-run  ## print how to connect a Telegram bot with the deployed API (STACK=name)
	@PYTHONPATH=functions $(python) -m infra.telegram webhook --stack "$${STACK:-incident-api}"

telegram-token: .venv/for-run  ## store the bot's token, which is asked for and not shown, in the account's SSM (STACK=name)
	@PYTHONPATH=functions $(python) -m infra.telegram token --stack "$${STACK:-incident-api}"

table-stream: .venv/for-run  ## turn on the stream of a table that is not the stack's own, and print its ARN: TABLE=name
	@PYTHONPATH=functions $(python) -m infra.telegram stream --table "$$TABLE"

# ---- data, of the local run (DATA=.local) or of a stack (STACK=name)

transfer = @PYTHONPATH=functions $(python) -m infra.transfer $(1) --data "$(DATA)" --stack "$$STACK"

import: .venv/for-run  ## import incidents: FILE=incidents.csv or .jsonl (MAP="source.web=partner status.new=open" DATA=.local or STACK=name)
	$(call transfer,import) --file "$$FILE" --map "$$MAP"

export: .venv/for-run  ## export incidents with their history: FILE=incidents.jsonl or .csv (FORMAT= SINCE= UNTIL= STATUS= DATA=.local or STACK=name)
	$(call transfer,export) --file "$$FILE" --format "$$FORMAT" --since "$$SINCE" --until "$$UNTIL" --status "$$STATUS"

erase: .venv/for-run  ## erase what people wrote about an incident, and their names: ID=… (YES=1 does not ask, DATA=.local or STACK=name)
	$(call transfer,erase) --id "$$ID" $(if $(filter 1,$(YES)),--yes)

# ---- benchmarks

bench: bench-builds bench-list  ## measure the functions beside what one would build instead, and the list (Linux)
	$(runtime_python) -m tests.benchmarks.speed

bench-check: bench-builds  ## measure the functions; fail where they are worse than tests/benchmarks/README.md says
	$(runtime_python) -m tests.benchmarks.speed --check

bench-list: runtime .venv-runtime/for-all  ## measure what a page of the list costs
	PYTHONPATH=functions $(runtime_python) -m tests.benchmarks.paging

peers := tests/benchmarks/peers
bench-builds: runtime .venv-runtime/for-all $(sam_installed) $(peers)/bare/requirements.txt $(peers)/fastapi_mangum/requirements.txt
	$(build_environment) $(SAM) build --build-dir .aws-sam/bench/functions --parameter-overrides Architecture=$(if $(filter aarch64,$(shell uname -m)),arm64,x86_64)
	PATH="$$PWD/.venv-runtime/bin:$$PATH" $(SAM) build --cached --template $(peers)/template.yaml --build-dir .aws-sam/bench/peers

include infra/environments.mk
