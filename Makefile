# Every target sets up what it needs. Works with GNU make 3.81 and later.
#
# The environment is, in this order: the folder of programs that BIN names; the active conda environment, if this
# package is installed in it (conda env create -f environment.yml); else .venv, made here with $(PYTHON).

PROFILE ?= quick
PYTHON  ?= python3
RULE    ?= all

# They stand in recipes as "$$PROFILE" and $$RULE: the shell takes them as one word and as words, whatever they hold.
# ARGS is pasted into the command as it is typed, quotes included: ARGS='-k "one or two"'.
export PROFILE RULE

# Programs keep caches below HOME; where they may not write there, below .snakemake/home.
CACHE := "$${XDG_CACHE_HOME:-$$HOME/.cache}/snakemake"
ifneq ($(shell mkdir -p $(CACHE) 2>/dev/null && test -w $(CACHE) && echo writable),writable)
export HOME := $(CURDIR)/.snakemake/home
export XDG_CACHE_HOME := $(HOME)/.cache
endif

CONDA_BIN := $(shell test -n "$$CONDA_PREFIX" && "$$CONDA_PREFIX/bin/python" -I -c 'import sys, pathlib, sbkit; \
	sys.exit(not pathlib.Path(sbkit.__file__).parent.samefile("sbkit"))' 2>/dev/null && echo "$$CONDA_PREFIX/bin")
LOCK = "$(PYTHON)" workflow/lock.py .lock

# What is installed and what builds it; pip has called the second by the second name since version 25.3.
PINNED = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
LIGHT := ipykernel ipywidgets jinja2 nbconvert pandas papermill psutil rocrate scipy seaborn snakemake

ifneq ($(origin BIN),command line)
ifneq ($(CONDA_BIN),)
BIN := $(CONDA_BIN)
else
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.installed
endif
endif

# With exec, the signal that ends make reaches the program itself. One line a finished job:
# workflow/snakemake_logger_plugin_lines.
SNAKEMAKE = exec env PYTHONPATH="$(CURDIR)/workflow:$$PYTHONPATH" "$(BIN)/python" -m snakemake --logger lines

# Redrawing needs neither torch nor a compiler: without an environment at hand, a light one is made.
FIGURES_BIN := $(BIN)
ifdef STAMP
ifeq ($(wildcard $(STAMP)),)
FIGURES_BIN := $(CURDIR)/.venv-figures/bin
FIGURES_STAMP := .venv-figures/.installed
endif
endif

help:  ## this list
	@echo "make TARGET [PROFILE=a table of notebooks/experiments.toml] [PYTHON=python3.12] [BIN=folder]"
	@echo "ARGS=... goes to the program behind a target as it is typed: ARGS=-n shows what reproduce would run"
	@echo "RULE='accuracy speed' runs these rules alone, RULE=results/quick/tables/claims.csv what this file needs"
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  %-10s %s\n", $$1, $$2 }'

reproduce: setup  ## every run, figure, table and the page of PROFILE into results/PROFILE; again: only what changed
	@$(SNAKEMAKE) --config profile="$$PROFILE" $(ARGS) -- $$RULE
	@echo "figures   results/$$PROFILE/figures"
	@echo "tables    results/$$PROFILE/tables"
	@echo "overview  results/$$PROFILE/index.html"
	@exec "$(BIN)/python" -m sbkit.page --verdicts "$$PROFILE"

bench: setup  ## only the benchmarks of PROFILE
	@$(SNAKEMAKE) --config profile="$$PROFILE" $(ARGS) -- benchmarks
	@echo "records   results/$$PROFILE/records/bench"

figures:  ## redraw results/reference/PROFILE from its committed records: no training, no data, no compiler
	@exec $(MAKE) --no-print-directory setup redraw BIN="$(FIGURES_BIN)" STAMP=$(FIGURES_STAMP)
	@echo "figures   results/reference/$$PROFILE/figures"
	@echo "tables    results/reference/$$PROFILE/tables"
	@echo "overview  results/reference/$$PROFILE/index.html"

redraw:
	@$(SNAKEMAKE) --config profile="reference/$$PROFILE" --forceall $(ARGS) -- $$RULE

gallery:  ## results/reference/README.md and the tables in README.md and docs/, from what `make figures` drew
	exec "$(FIGURES_BIN)/python" -m sbkit.page --gallery

test: setup  ## linters and the test suite on two cores, a smoke reproduction included; ARGS='-n 0 --pdb' for one alone
	"$(BIN)/ruff" check sbkit tests notebooks workflow
	"$(BIN)/ruff" format --check sbkit tests notebooks workflow
	"$(BIN)/nbstripout" --verify notebooks/*.ipynb
	exec "$(BIN)/python" -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# A build of its own, which -S keeps the installed one from replacing: site would load that one's import hook.
SANITIZED = ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	PYTHONPATH="build/sanitize/package:$$("$(BIN)/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	"$(BIN)/python" -S -P

sanitize: setup  ## the tests of the kernels under GCC's address and undefined-behaviour sanitizers
	$(PINNED) CXX="$(CXX)" "$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target build/sanitize/package -C build-dir=build/sanitize/cmake -C cmake.define.SBKIT_SANITIZE=ON .
	$(SANITIZED) -c 'from sbkit import kernels; assert "-fsanitize=address" in kernels.build_info()["flags"]'
	exec env $(SANITIZED) -m pytest --capture=sys tests/test_kernels.py tests/test_integer_kernels.py tests/test_pipeline_kernels.py \
		tests/test_outer_kernels.py \
		$(ARGS)

lab: setup  ## the notebooks in JupyterLab
	exec "$(BIN)/jupyter-lab" --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_overview.ipynb $(ARGS)

clean:  ## remove results (not results/reference) and build files
	@$(LOCK) find results -mindepth 1 -maxdepth 1 -type d ! -name reference -exec rm -rf {} +
	rm -rf build .snakemake

distclean: clean  ## clean, and remove the environments; downloaded data stays
	rm -rf .venv .venv-figures

setup:  ## the environment alone
	@test -z "$(STAMP)" || $(MAKE) --no-print-directory -q $(STAMP) 2>/dev/null || \
		exec $(LOCK) $(MAKE) --no-print-directory $(STAMP)
	@exec "$(BIN)/python" -c "$$OWN_CODE"

# An environment that was copied or moved, or made for another clone, runs that one's code, whatever the folder.
define OWN_CODE
import pathlib, sys
try:
    import sbkit
    used = pathlib.Path(sbkit.__file__).parent
    wrong = "" if used.samefile("sbkit") else f"runs the code in {used}, not that of this folder"
except (ImportError, OSError) as error:
    wrong = f"cannot import sbkit ({error})"
if wrong:
    sys.exit(f"{sys.executable} {wrong}. Remove the environment .venv and make it again, or, for one of your own, "
             "run its python -m pip install -e . here")
endef
export OWN_CODE

.venv/.installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*)
	@command -v "$${CXX:-c++}" >/dev/null || { echo "sbkit needs a C++17 compiler; found none named $${CXX:-c++} (set CXX)"; exit 1; }
	@$(MAKE) --no-print-directory venv VENV=.venv COSTS="2 to 5 minutes and 2 GB"
	$(PINNED) .venv/bin/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@

.venv-figures/.installed: constraints.txt
	@$(MAKE) --no-print-directory venv VENV=.venv-figures COSTS="1 to 3 minutes and 0.5 GB"
	.venv-figures/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt $(LIGHT)
	@touch $@

venv:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "sbkit needs Python >= 3.11; $(PYTHON) is $$("$(PYTHON)" --version 2>&1): run make with PYTHON=<a newer one>"; exit 1; }
	@echo "setting up $(VENV), once: about $(COSTS)"
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)

.PHONY: help reproduce bench figures gallery test sanitize lab clean distclean setup redraw venv
