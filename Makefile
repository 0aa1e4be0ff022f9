# What a newcomer types (run, test) and what a developer types. `make help` lists it all.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where `make run` keeps its database and keys.
export TOKENROUTE_STATE_DIR ?= $(CURDIR)/state
# Seconds for each fuzz target of `make fuzz`, and bodies for `make differential`.
FUZZ_SECONDS ?= 600
BODIES ?= 1000000
# More words for `make dist`, such as `--target x86_64-unknown-linux-musl`.
DIST ?=
# Test processes of the end-to-end tests.
WORKERS ?= 2

# The tests' own tools come first: a Python environment, and its Node.js where the system has none.
TOOLS := export PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

.PHONY: run
run: ## Build and start the gateway with built-in defaults; the first start prints a key and a curl line
	@tests/packages.sh cmake
	cargo build --package tokenroute-server
	exec cargo run --quiet --package tokenroute-server --bin tokenrouted -- run

.PHONY: setup
setup: ## Install what the tests need, unless it is there
	@tests/setup.sh

.PHONY: test
test: setup format lint supply units agreement counts e2e ## Everything: what CI runs
	@echo "make test: everything passed"

.PHONY: check
check: format lint supply units agreement counts ## The inner loop: format, lints, what is built in, unit tests, a few seconds of each fuzz target
	@echo "make check: passed"

.PHONY: format
format:
	@echo "== format"
	cargo fmt --all --check

.PHONY: lint
lint:
	@echo "== lints"
	tests/packages.sh cmake
	cargo clippy --quiet --workspace --all-targets -- --deny warnings

.PHONY: supply
supply:
	@$(TOOLS)
	echo "== supply: versions, licences and sources of what is built in"
	command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: make setup" >&2; exit 1; }
	cargo-deny --offline --locked --log-level error check bans licenses sources

.PHONY: advisories
advisories: ## What is built in against the advisory database, which is fetched
	@$(TOOLS)
	cargo-deny --locked check advisories

.PHONY: units
units:
	@echo "== unit tests, house rules, fuzz targets"
	tests/packages.sh cmake redis-server postgres
	cargo test --quiet --workspace

.PHONY: agreement
agreement:
	@$(TOOLS)
	echo "== differential: the request scanner against CPython and Node"
	python3 tests/differential/run.py 20000

.PHONY: counts
counts:
	@$(TOOLS)
	echo "== instructions and system calls of a call"
	tests/packages.sh cmake valgrind strace
	cargo build --quiet --package tokenroute-server --package tokenroute-provider
	python3 benches/count.py

.PHONY: e2e
e2e: ## The end-to-end tests: real binary, real clients, real Redis and PostgreSQL
	@$(TOOLS)
	echo "== end to end"
	cargo build --quiet --package tokenroute-server --package tokenroute-provider --package tokenroute-driver --package tokenroute-cli
	src/cli/dist.py --profile dev --out "$${CARGO_TARGET_DIR:-target}/dist" >/dev/null
	python3 -m pytest --rootdir tests/e2e --config-file tests/e2e/pytest.ini --numprocesses $(WORKERS) tests/e2e

.PHONY: soak
soak: ## Mixed traffic over edges that share books for SOAK_MINUTES (30), a fault every 30 s by SOAK_SEED (1), then the audit
	@$(TOOLS)
	cargo build --quiet --package tokenroute-server --package tokenroute-provider --package tokenroute-driver
	SOAK_MINUTES=$${SOAK_MINUTES:-30} SOAK_FAULT_SECONDS=$${SOAK_FAULT_SECONDS:-30} \
		python3 -m pytest --rootdir tests/e2e --config-file tests/e2e/pytest.ini --capture=no tests/e2e/test_soak.py

.PHONY: soak-faults
soak-faults: ## The tests of faults at an operator's own pace, no duration divided by ten
	@$(TOOLS)
	cargo build --quiet --package tokenroute-server --package tokenroute-provider --package tokenroute-driver
	TOKENROUTE_TEST_SCALE=1 python3 -m pytest --rootdir tests/e2e --config-file tests/e2e/pytest.ini --numprocesses $(WORKERS) \
		tests/e2e/test_failover*.py tests/e2e/test_recovery.py tests/e2e/test_drain.py tests/e2e/test_upgrade.py \
		tests/e2e/test_money_stores.py

.PHONY: soak-kills
soak-kills: ## The tests of kills with 1,000 of them, under the auditor's eyes
	@$(TOOLS)
	cargo build --quiet --package tokenroute-server --package tokenroute-provider --package tokenroute-driver
	TOKENROUTE_KILLS=1000 python3 -m pytest --rootdir tests/e2e --config-file tests/e2e/pytest.ini --numprocesses $(WORKERS) \
		tests/e2e/test_money_crash.py

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZ_SECONDS (600)
	@tests/packages.sh cmake
	export BOLERO_RANDOM_TEST_TIME_MS=$$(( $(FUZZ_SECONDS) * 1000 ))
	cargo test --quiet --package tokenroute-fuzz
	cargo test --quiet --package tokenroute-server config::tests::fuzz

.PHONY: differential
differential: ## The request scanner against CPython and Node with BODIES (1000000) bodies
	@$(TOOLS)
	python3 tests/differential/run.py $(BODIES) --release

.PHONY: bench
bench: ## Measure scanner, splicer and meter
	cargo bench --package tokenroute-wire

.PHONY: loadtest
loadtest: ## The table: CPU and latency beside nginx, HAProxy and bare Pingora (about 6 minutes)
	@tests/packages.sh cmake nginx haproxy
	cargo build --release --package tokenroute-server --package tokenroute-driver --package tokenroute-provider
	loadtest/table.py

.PHONY: loadtest-overload
loadtest-overload: ## Four times the load that the edge can take: what is served, and how others are turned away (about 2 minutes)
	@tests/packages.sh cmake
	cargo build --release --package tokenroute-server --package tokenroute-driver --package tokenroute-provider
	loadtest/overload.py

.PHONY: loadtest-streams
loadtest-streams: ## 8,000 streams at once, three times: failures, cores, memory (about 5 minutes)
	@tests/packages.sh cmake
	cargo build --release --package tokenroute-server --package tokenroute-driver --package tokenroute-provider
	loadtest/streams.py

.PHONY: loadtest-money
loadtest-money: ## What a paid call costs beside an unpaid one, on one node and with Redis (about 2 minutes)
	@tests/packages.sh cmake redis-server postgres
	cargo build --release --package tokenroute-server --package tokenroute-driver --package tokenroute-provider
	loadtest/table.py --money

.PHONY: dist
dist: ## What is published of the command line, into dist/: a wheel for PyPI and packages for npm
	@$(TOOLS)
	tests/setup.sh
	python3 src/cli/dist.py $(DIST)

.PHONY: clean
clean: ## Remove what was built and installed here; the state folder stays
	cargo clean
	rm -rf .venv tests/node_modules dist
