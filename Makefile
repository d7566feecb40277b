# The commands. Each first sets up what it needs in this folder.
.DEFAULT_GOAL := help
.PHONY: runtime bench-builds $(shell sed -n 's/^\([a-z0-9-]*\):.*## .*/\1/p' Makefile infra/environments.mk)

PORT ?= 8000
DATA ?= .local
CONFIG ?= default
include infra/environments.mk

help:  ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

run: .venv/for-run  ## serve the API on http://localhost:8000 (PORT=8000 DATA=.local PARAMETERS="TelegramChats=-1001234567890")
	@$(python) -m infra.local --port $(PORT) --data "$(DATA)" --parameters "$$PARAMETERS"
sam-local: runtime .venv/for-run $(sam_installed)  ## the same in Lambda's containers, under sam local start-api (needs Docker)
	@$(build_environment) $(python) -m infra.local.sam --sam "$(SAM)" --port $(PORT) --data "$(DATA)"
database: .venv/for-run  ## the database alone, for your own sam local start-api
	@$(python) -m infra.local.sam --sam "" --data "$(DATA)"

# ---- tests

# Three processes for two cores, because one of them often waits; in the order of the file names, whose last ones are short.
pytest := -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
behaviour := tests/test_create_incident.py tests/test_read_incidents.py tests/test_update_incident.py

test: .venv/for-all  ## run the tests, and measure how much of the functions they cover
	$(python) $(pytest) -m "not slow" --cov --cov-report=term:skip-covered

test-runtime: runtime .venv-runtime/for-all  ## run every test, with more random inputs, on the functions' runtime
	$(runtime_python) $(pytest) --hypothesis-profile=thorough

fuzz: .venv/for-all  ## search for a request, a fault or a list that breaks a rule, for about ten minutes
	$(python) -m pytest --numprocesses 3 --hypothesis-profile=fuzz -m hypothesis

# mutmut works in .mutants, which links to the project's files. Results are kept: another run tests the remaining mutants.
mutants: .venv/for-all  ## put small bugs into the functions and show which no test notices, in an hour or two (MUTANTS="store.*")
	@mkdir -p .mutants/mutants
	@ln -sfn ../functions .mutants/src && ln -sfn src .mutants/mutants/functions
	@for each in infra tests template.yaml samconfig.toml pyproject.toml Makefile README.md README.ru.md; do ln -sfn ../$$each .mutants/$$each; done
	cd .mutants && ../$(python) -m mutmut run $(MUTANTS) && ../$(python) -m mutmut results

e2e: runtime .venv/for-all .venv-sam/installed  ## deploy to an emulated AWS and test the API and the deployment there
	$(build_environment) $(python) -m pytest --capture=no --on aws $(behaviour) tests/e2e/test_notifications.py tests/e2e/test_integrations.py tests/e2e/test_account.py tests/e2e/test_aws.py

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

# ---- AWS. Variables of the command line reach the programs through the shell's environment, whatever characters they contain.

stack := --stack "$${STACK:-incident-api}"
yes = $(if $(filter 1,$(YES)),--yes)
# Parameters on the command line replace those of samconfig.toml, including Architecture. The SAM CLI takes an empty value, or one
# with spaces, only in quotation marks, and does not read AWS_REGION.
with_overrides = set -- $(if $(PARAMETERS),Architecture=arm64 $(PARAMETERS)); \
	for each; do set -- "$$@" "$${each%%=*}=\"$${each\#*=}\""; shift; done; \
	$(build_environment) $(SAM) $(1) --config-env prod $(2) $${1:+--parameter-overrides} "$$@"
deploy_options = $(if $(AWS_REGION),--region $(AWS_REGION)) $(if $(STACK),--stack-name $(STACK)) $(if $(TAGS),--tags "$$TAGS") \
	$(if $(filter no,$(CONFIRM)),--no-confirm-changeset)

build: runtime $(sam_installed)  ## build for sam local; CONFIG=prod builds for AWS
	$(build_environment) $(SAM) build --config-env $(CONFIG)

deploy: runtime .venv/for-run $(sam_installed)  ## build, and deploy to AWS with samconfig.toml's prod settings (PARAMETERS="LogDays=90" STACK=name)
	@$(python) -m infra.doctor --parameters "$$PARAMETERS"
	$(call with_overrides,build)
	$(call with_overrides,deploy,$(deploy_options))

doctor: .venv/for-run $(sam_installed)  ## show what a deployment needs and what is missing (PARAMETERS="…" STACK=name)
	@$(python) -m infra.doctor --parameters "$$PARAMETERS" $(stack) --runtime "$(RUNTIME)" --sam "$(SAM)"

smoke: .venv/for-run  ## run the first ten minutes of infra/README.md against the deployed API (STACK=name)
	@$(python) -m infra.smoke $(stack) --url "$$API"

key: .venv/for-run  ## create an access key for the deployed API: NAME=partner-x ROLE=reporter (SOURCE=partner DAYS=90 STACK=name)
	@$(python) -m infra.keys $(stack) create --name "$$NAME" --role "$$ROLE" --source "$$SOURCE" --days "$$DAYS"
keys: .venv/for-run  ## list the access keys
	@$(python) -m infra.keys $(stack) list
revoke: .venv/for-run  ## revoke every access key of a name: NAME=partner-x (CREATED=time, for one of them; YES=1 does not ask)
	@$(python) -m infra.keys $(stack) revoke --name "$$NAME" --created "$$CREATED" $(yes)
copy-keys: .venv/for-run  ## accept another stack's access keys here, too: FROM=<its output KeysTableName> (STACK=name)
	@$(python) -m infra.keys $(stack) copy --table "$$FROM"

telegram-webhook: .venv/for-run  ## print how to connect a Telegram bot to the deployed API (STACK=name)
	@PYTHONPATH=functions $(python) -m infra.telegram webhook $(stack)
telegram-token: .venv/for-run  ## ask for the bot's token without showing it, and store it in the account's SSM (STACK=name)
	@PYTHONPATH=functions $(python) -m infra.telegram token $(stack)
table-stream: .venv/for-run  ## turn on the stream of a table that is not the stack's own, and print its ARN: TABLE=name
	@PYTHONPATH=functions $(python) -m infra.telegram stream --table "$$TABLE"

# ---- data, of the local run (DATA=.local) or of a stack (STACK=name)

transfer = @PYTHONPATH=functions $(python) -m infra.transfer $(1) --data "$(DATA)" --stack "$$STACK"

import: .venv/for-run  ## import incidents: FILE=incidents.csv or .jsonl (MAP="source.web=partner status.new=open" DATA=.local or STACK=name)
	$(call transfer,import) --file "$$FILE" --map "$$MAP"
export: .venv/for-run  ## export incidents with their history: FILE=incidents.jsonl or .csv (FORMAT= SINCE= UNTIL= STATUS= DATA=.local or STACK=name)
	$(call transfer,export) --file "$$FILE" --format "$$FORMAT" --since "$$SINCE" --until "$$UNTIL" --status "$$STATUS"
erase: .venv/for-run  ## erase what people wrote about an incident, and their names: ID=… (YES=1 does not ask, DATA=.local or STACK=name)
	$(call transfer,erase) --id "$$ID" $(yes)

# ---- benchmarks

bench: bench-builds bench-list  ## compare the functions with what one would build instead, and measure the list (Linux)
	$(runtime_python) -m tests.benchmarks.speed
bench-check: bench-builds  ## measure the functions; fail where they are worse than tests/benchmarks/README.md says
	$(runtime_python) -m tests.benchmarks.speed --check
bench-list: runtime .venv-runtime/for-all  ## measure what a page of the list costs
	PYTHONPATH=functions $(runtime_python) -m tests.benchmarks.paging

bench-builds: runtime .venv-runtime/for-all $(sam_installed) $(peers)/bare/requirements.txt $(peers)/fastapi_mangum/requirements.txt
	$(build_environment) $(SAM) build --build-dir .aws-sam/bench/functions --parameter-overrides Architecture=$(if $(filter aarch64,$(shell uname -m)),arm64,x86_64)
	PATH="$$PWD/.venv-runtime/bin:$$PATH" $(SAM) build --cached --template $(peers)/template.yaml --build-dir .aws-sam/bench/peers
