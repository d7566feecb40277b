# The Makefile's Python environments, and the pins that they are made from.

# Python 3.11 or newer to run and test; the functions' runtime to build.
first_of = $(shell for python in $(1); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PYTHON ?= $(call first_of,python3 python3.13 python3.12 python3.11)
RUNTIME ?= $(call first_of,python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python))
# For infra/layer/Makefile and functions/Makefile, which `sam build` calls.
build_environment := $(if $(RUNTIME),RUNTIME="$(RUNTIME)")

# Modules, not scripts: a script contains the path of this folder, and breaks when the folder is moved.
python := .venv/bin/python
runtime_python := .venv-runtime/bin/python
SAM ?= $(if $(shell command -v sam),sam,.venv-sam/bin/python -m samcli)
sam_installed := $(if $(findstring .venv-sam/,$(SAM)),.venv-sam/installed)

# Without byte code, every command takes a second longer.
unexport PYTHONDONTWRITEBYTECODE

run_pins := infra/layer/requirements.txt infra/local/requirements.txt
all_pins := $(run_pins) tests/requirements.txt
peers := tests/benchmarks/peers

.venv/for-run: $(run_pins)
	$(call install,$(PYTHON))

.venv/for-all: $(all_pins)
	$(call install,$(PYTHON))
	@touch .venv/for-run

.venv-runtime/for-all: $(all_pins)
	$(call install,$(RUNTIME))

# The SAM CLI, and the emulated AWS, which runs the functions. Both pin an older botocore than the functions do.
.venv-sam/installed: infra/sam/requirements.txt
	$(call install,$(RUNTIME))

runtime:
	@[ -n "$(RUNTIME)" ] || { echo "Python 3.13, the functions' runtime, is needed; install it, or name it: make RUNTIME=/path/to/python3.13"; exit 1; }

# uv takes half of pip's time. pip is the second try, because it also reads settings that uv does not, such as a mirror's.
# The pins are complete, so neither looks for dependencies.
define install
@[ -n "$(1)" ] || { echo "Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python"; exit 1; }
@echo "Setting up $(@D), this once ..." >&2
@"$(1)" -m venv $(@D) || { echo "Python cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --requirement infra/uv/requirements.txt
@$(@D)/bin/python -m uv pip install --quiet --python $(@D)/bin/python --require-hashes --no-deps $(addprefix -r ,$^) || \
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps $(addprefix -r ,$^)
@touch $@
endef

compile = $(python) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	$(if $(UPGRADE),--upgrade)
# Keeps the versions that these files pin, and leaves them out of the next file.
constraints = $(addprefix --constraint ,$(1)) $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' $(1))

lock: .venv/for-all  ## pin what pyproject.toml asks for; UPGRADE=1 takes the newest versions that it allows
	$(compile) --group uv --output-file infra/uv/requirements.txt
	$(compile) pyproject.toml --output-file infra/layer/requirements.txt
	$(compile) pyproject.toml --group local $(call constraints,infra/layer/requirements.txt) --output-file infra/local/requirements.txt
# aiogram asks for a pydantic older than the functions'. Its models work with theirs, as the tests show.
	echo pydantic | $(compile) pyproject.toml --group dev --override /dev/stdin $(call constraints,$(run_pins)) --output-file tests/requirements.txt
	$(compile) --group sam --output-file infra/sam/requirements.txt

# What `make bench` compares the functions with, in the functions' own versions.
$(peers)/%/requirements.txt: $(all_pins) | .venv/for-all
	$(compile) --group $* $(addprefix --constraint ,$(all_pins)) --output-file $@
