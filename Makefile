# The verbs. Each sets up what it needs, once, inside this folder.
.PHONY: help run test check format openapi lock
.DEFAULT_GOAL := help

PORT ?= 8000
DATA ?= .local

# Python 3.11 or newer: python3 where it is, else the first of these.
first_of = $(shell for python in $(1); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTHON ?= $(call first_of,python3 python3.13 python3.12 python3.11)
# The functions' runtime: where it is installed, the tests run on it too.
RUNTIME ?= $(call first_of,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))

run_pins := functions/requirements.txt infra/local/requirements.txt
all_pins := $(run_pins) tests/requirements.txt

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

run: .venv/for-run  ## serve the API on http://localhost:8000 (PORT=8000 DATA=.local)
	@.venv/bin/python -m infra.local --port $(PORT) --data $(DATA)

test: .venv/for-all $(if $(RUNTIME),.venv-3.13/for-all)  ## run all tests, where Python 3.13 is installed on that too
	.venv/bin/pytest
	$(if $(RUNTIME),.venv-3.13/bin/pytest)

check: .venv/for-all  ## lint, format, types, template
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/cfn-lint template.yaml
	$(if $(shell command -v sam),sam validate --lint)

format: .venv/for-all  ## lay out the code and mend what ruff can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

openapi: .venv/for-run  ## write infra/openapi.json anew, after a change of the contract
	.venv/bin/python -m infra.openapi

# ---- environments: made once, and again when the pins change

.venv/for-run: $(run_pins)
	$(call install,.venv,$(PYTHON),$^)

.venv/for-all: $(all_pins)
	$(call install,.venv,$(PYTHON),$^)
	@touch .venv/for-run

.venv-3.13/for-all: $(all_pins)
	$(call install,.venv-3.13,$(RUNTIME),$^)

define install
@[ -n "$(2)" ] || { echo "Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python"; exit 1; }
@echo "Setting up $(1), this once ..."
@$(2) -m venv $(1) || { echo "Python cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
@$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes $(addprefix -r ,$(3))
@touch $@
endef

# ---- pins: run `make lock` after a change of pyproject.toml's dependencies

compile = .venv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --upgrade
# What these files pin, the next one takes as it is and does not repeat.
beyond = $(addprefix --constraint ,$(1)) $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' $(1))

lock: .venv/for-all  ## pin the newest versions that pyproject.toml allows
	.venv/bin/pip install --quiet --disable-pip-version-check uv
	$(compile) --output-file functions/requirements.txt
	$(compile) --group local $(call beyond,functions/requirements.txt) --output-file infra/local/requirements.txt
	$(compile) --group dev $(call beyond,$(run_pins)) --output-file tests/requirements.txt
