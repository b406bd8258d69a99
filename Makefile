# Everything that is built lands outside the repository, so that a fresh clone is as warm as the host.
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spiffe-operator
export CARGO_TARGET_DIR ?= $(CACHE)/target

# What the integration tests need to find: the dev tool, the workload program and the image archives.
export SPIFFE_DEVCLUSTER := $(CURDIR)/dev/devcluster.sh
export SPIFFE_IMAGES := $(CACHE)/target/images
export SPIFFE_WORKLOAD := $(SPIFFE_IMAGES)/workload

# Tools that are no part of the toolchain, pinned.
TOOLS := $(CACHE)/tools
CARGO_DENY := cargo-deny@0.20.2
CARGO_MACHETE := cargo-machete@0.9.2

# Time for all tests once they are compiled. Each wait in a test has a deadline of its own, so this
# ends only what should not be there.
TEST_MINUTES ?= 40

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-slow test-dev lint format clippy docs lint-dev deny bench bench-spire codegen clean tools servers checkout can-test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: checkout ## see the operator at work on a cluster of its own on this host
	@dev/demo.sh

demo-down: ## take the demo's cluster away
	@dev/devcluster.sh down

# The cache is shared by all checkouts on the host, and cargo tells sources apart by their times
# alone: what another checkout compiled must not pass for this one's.
checkout:
	@mkdir -p "$(CARGO_TARGET_DIR)"
	@if [ "$$(cat "$(CARGO_TARGET_DIR)/checkout" 2>/dev/null)" != "$(CURDIR)" ]; then \
		cargo clean --quiet --package spiffe-operator; \
		cargo clean --quiet --package spiffe-operator --release; \
		echo "$(CURDIR)" > "$(CARGO_TARGET_DIR)/checkout"; \
	fi

# Before anything is built, which takes minutes, what would fail after it.
can-test:
	@[ "$$(uname -s)" = Linux ] || { echo "make test needs Linux; this is $$(uname -s)"; exit 1; }
	@for tool in cargo go gcc; do \
		command -v $$tool >/dev/null || { echo "make test needs $$tool, which is not on PATH"; exit 1; }; \
	done
	@[ "$$(id -u)" = 0 ] || { \
		echo "make test needs root, for the end-to-end tests: their node runs containers, in namespaces,"; \
		echo "mounts and control groups of its own. Run it as root. What needs no root:"; \
		echo "    make test-dev && cargo test --lib --test architecture --test codegen"; \
		exit 1; }

servers:
	@dev/devcluster.sh build all
	@dev/devcluster.sh images --out "$(SPIFFE_IMAGES)"

test: can-test test-dev servers checkout ## run all tests on real servers, except the slow ones
	cargo test --locked --no-run
	dev/watchdog.sh $(TEST_MINUTES) cargo test --locked

test-slow: can-test servers checkout ## run the tests that wait for real refreshes (6 to 12 minutes)
	cargo test --locked --no-run --test it
	dev/watchdog.sh $(TEST_MINUTES) cargo test --locked --test it -- --ignored

test-dev: ## run the tests of the dev tool, which need nothing but Go
	cd dev/devcluster && go test .

lint: format clippy docs lint-dev ## check format, lints and documentation

format:
	cargo fmt --check

clippy: checkout
	cargo clippy --locked --all-targets -- -D warnings

docs: checkout
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items

lint-dev:
	@unformatted=$$(gofmt -l dev) || exit 1; test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	cd dev/devcluster && go vet .
	cd dev/workload && go vet .

# No part of lint and .ci/run, as its tools take minutes to build. tests/architecture/dependencies.rs
# checks the same bans, licences and sources with cargo alone.
deny: ## check dependencies with cargo-deny and cargo-machete, which 'make tools' installs
	@for tool in cargo-deny cargo-machete; do \
		[ -x "$(TOOLS)/bin/$$tool" ] || { \
			echo "nothing was checked: $$tool is not in $(TOOLS)/bin; 'make tools' installs it"; exit 1; }; \
	done
	"$(TOOLS)/bin/cargo-deny" --offline check bans licenses sources
	"$(TOOLS)/bin/cargo-machete"

tools: ## install cargo-deny and cargo-machete, for 'make deny', outside the repository
	cargo install --locked --root "$(TOOLS)" $(CARGO_DENY) $(CARGO_MACHETE)

bench: checkout ## measure what docs/performance.md reports (PODS=100000 for a larger cluster)
	@dev/devcluster.sh build control-plane
	PODS=$(PODS) cargo bench --bench cluster --bench registry --bench signing

bench-spire: checkout ## measure us beside a stock spire-server (AGENTS=1000 ROUNDS=2)
	@dev/devcluster.sh build control-plane spire
	AGENTS=$(AGENTS) ROUNDS=$(ROUNDS) cargo bench --bench spire

codegen: checkout ## rewrite the generated files: CRDs, RBAC, reference
	UPDATE=1 cargo test --test codegen

# A folder that the user gave in CARGO_TARGET_DIR is theirs, with whatever else is in it.
clean: ## remove what this repository made on the host: the cluster, servers, tools, build output
	@dev/devcluster.sh down
	@echo "removing $(CACHE)"
	@rm -rf "$(CACHE)"
	@case "$(abspath $(CARGO_TARGET_DIR))/" in \
		"$(abspath $(CACHE))"/*) ;; \
		*) echo "left alone, as CARGO_TARGET_DIR is yours: $(CARGO_TARGET_DIR); 'cargo clean' empties it" ;; \
	esac
