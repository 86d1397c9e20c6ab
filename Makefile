# Each target sets up $(VENV) by itself when it is missing or older than the lock. The path of VENV may hold no
# spaces (a target of make cannot); the path of this folder may.

VENV ?= .venv
PYTHON ?= python3
PYTEST_FLAGS ?= -n 2 --dist worksteal
PRESET ?=
ONLY ?=
JOBS ?=
WORKERS ?=
UPGRADE ?=

INSTALLED := $(VENV)/.ddcore-installed
COMPILE := pip compile --universal --python-version 3.11 --extra test pyproject.toml -o requirements.lock

# The stamp names the folder it was made for: a moved clone, or a VENV shared by two, is set up anew.
ifneq ($(shell cat "$(INSTALLED)" 2>/dev/null),$(CURDIR))
MOVED := moved
endif

.PHONY: help setup reproduce test test-faults test-kernels test-ddranking test-metadata lint refresh lock clean moved
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  VENV=DIR names another environment (now $(VENV)), PYTHON=PROGRAM the Python it is made from (now $(PYTHON))"

reproduce: $(INSTALLED) ## execute the notebooks into runs/<preset>/  (PRESET=smoke|laptop|desk|paper ONLY=11 JOBS=2 WORKERS=2)
	@"$(VENV)/bin/ddcore" reproduce $(if $(PRESET),--preset "$(PRESET)") $(if $(ONLY),--only "$(ONLY)") $(if $(JOBS),--jobs "$(JOBS)") $(if $(WORKERS),--workers "$(WORKERS)")

test: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)
test: $(INSTALLED) ## all tests, the committed notebooks included  (PYTEST_FLAGS="-n 2 --dist worksteal")
	@"$(VENV)/bin/python" -m pytest $(PYTEST_FLAGS)

test-kernels: export DDCORE_KERNELS := all
test-kernels: $(INSTALLED) ## every Triton kernel compiled for every GPU that is named, without one
	@"$(VENV)/bin/python" -m pytest -q tests/test_kernels_compiled.py

test-faults: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)
test-faults: export DDCORE_FAULTS := 20
test-faults: $(INSTALLED) ## a batch killed at 20 random moments, a full disk, two batches at once  (minutes)
	@"$(VENV)/bin/python" -m pytest -q -s tests/test_faults.py

# ddranking asks for an older NumPy than the lock has, so it and what it needs beside torch lie in a folder of their own.
test-ddranking: $(INSTALLED) ## sets as exported for ddranking 0.2.0, evaluated by it  (installs it into VENV-ddranking, 50 MB)
	@"$(VENV)/bin/uv" pip install --quiet --python "$(VENV)/bin/python" --target "$(VENV)-ddranking" --no-deps \
	    ddranking==0.2.0 kornia==0.9.0 kornia_rs==0.2.0 timm==1.0.31 huggingface_hub==0.36.2 filelock fsspec hf-xet requests tqdm
	@DDRANKING="$(VENV)-ddranking" "$(VENV)/bin/python" -m pytest -q tests/test_ddranking.py

test-metadata: $(INSTALLED) ## CITATION.cff by cffconvert, an exported RO-Crate by its validator  (installs both into VENV-metadata, 45 MB)
	@test -x "$(VENV)-metadata/bin/python" || "$(VENV)/bin/uv" venv --quiet --python "$(VENV)/bin/python" "$(VENV)-metadata"
	@"$(VENV)/bin/uv" pip install --quiet --python "$(VENV)-metadata/bin/python" cffconvert==2.0.0 roc-validator==0.13.0
	@CFFCONVERT="$(abspath $(VENV)-metadata)/bin/cffconvert" ROC_VALIDATOR="$(abspath $(VENV)-metadata)/bin/rocrate-validator" \
	    "$(VENV)/bin/python" -m pytest -q tests/test_figures_crate.py tests/test_packaging.py -k "crate or cffconvert"

lint: $(INSTALLED) ## ruff over the code and the notebooks, and the layers of the package
	@"$(VENV)/bin/ruff" check .
	@"$(VENV)/bin/ruff" format --check --quiet .
	@"$(VENV)/bin/lint-imports" --no-cache

refresh: $(INSTALLED) ## execute the committed notebooks anew, in place
	@"$(VENV)/bin/ddcore" refresh

setup: $(INSTALLED) ## only install: the lock and this package, into VENV
	@:

lock: | $(VENV)/bin/uv ## compile requirements.lock from pyproject.toml  (UPGRADE=1 moves every version)
	@VIRTUAL_ENV="$(VENV)" "$(VENV)/bin/uv" $(COMPILE) --quiet $(if $(UPGRADE),--upgrade)

clean: ## remove caches, build leftovers and the smoke run; keeps VENV, records and longer runs
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis runs/smoke
	@find ddcore tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml $(MOVED) | $(VENV)/bin/uv
	@echo "Installing requirements.lock and ddcore into $(VENV) (torch with CUDA: some 5 GB)"
	@test -t 2 || quiet=--quiet; \
	 "$(VENV)/bin/uv" pip install $$quiet --python "$(VENV)/bin/python" -r requirements.lock && \
	 "$(VENV)/bin/uv" pip install $$quiet --python "$(VENV)/bin/python" --no-deps -e .
	@printf '%s\n' "$(CURDIR)" > "$@"

$(VENV)/bin/uv:
	@python="$(PYTHON)"; if test -x "$(VENV)/bin/python"; then python="$(VENV)/bin/python"; fi; \
	 "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	   echo "ddcore needs Python 3.11 or newer, and $$python is not: name one, as in 'make PYTHON=python3.12 test'." >&2; exit 1; }; \
	 if ! test -x "$(VENV)/bin/python"; then \
	   "$$python" -c 'import venv, ensurepip' 2>/dev/null || { \
	     echo "$$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv), or name another Python with PYTHON=." >&2; exit 1; }; \
	   "$$python" -m venv "$(VENV)"; \
	 fi
	@"$(VENV)/bin/python" -m pip --version >/dev/null 2>&1 || "$(VENV)/bin/python" -m ensurepip >/dev/null
	@"$(VENV)/bin/python" -m pip install -qq --disable-pip-version-check --root-user-action=ignore 'uv>=0.9'
