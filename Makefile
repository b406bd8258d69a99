# Everything that is built lands outside the repository, so that a fresh clone is as warm as the host.
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spiffe-operator
export CARGO_TARGET_DIR ?= $(CACHE)/target

# What the integration tests need to find: the dev tool, the workload program and the image archives.
export SPIFFE_DEVCLUSTER := $(CURDIR)/dev/devcluster.sh
export SPIFFE_IMAGES := $(CARGO_TARGET_DIR)/images
export SPIFFE_WORKLOAD := $(SPIFFE_IMAGES)/workload

# Tools that are no part of the toolchain, pinned.
TOOLS := $(CACHE)/tools
CARGO_DENY := cargo-deny@0.20.2
CARGO_MACHETE := cargo-machete@0.9.2

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-slow lint format clippy docs lint-dev deny bench codegen clean tools servers checkout

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: checkout ## see the operator at work on a cluster of its own on this host
	@dev/demo.sh

demo-down: ## take the demo's cluster away
	@dev/devcluster.sh down

# The cache is shared by all checkouts on the host, and cargo tells sources apart by their times
# alone: what another checkout compiled must not pass for this one's.
checkout:
	@mkdir -p $(CARGO_TARGET_DIR)
	@if [ "$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null)" != "$(CURDIR)" ]; then \
		cargo clean --quiet --package spiffe-operator; \
		cargo clean --quiet --package spiffe-operator --release; \
		echo "$(CURDIR)" > $(CARGO_TARGET_DIR)/checkout; \
	fi

servers:
	@dev/devcluster.sh build all
	@dev/devcluster.sh images --out $(SPIFFE_IMAGES)

test: servers checkout ## run all tests on real servers, except the slow ones
	cargo test

test-slow: servers checkout ## run the tests that wait for real refreshes (6 to 12 minutes)
	cargo test --test it -- --ignored

lint: format clippy docs lint-dev deny ## check format, lints, documentation and dependencies

format:
	cargo fmt --check

clippy: checkout
	cargo clippy --all-targets -- -D warnings

docs: checkout
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --document-private-items

lint-dev:
	@unformatted=$$(gofmt -l dev); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	cd dev/devcluster && go vet .
	cd dev/workload && go vet .

deny:
	@if [ -x $(TOOLS)/bin/cargo-deny ] && [ -x $(TOOLS)/bin/cargo-machete ]; then \
		$(TOOLS)/bin/cargo-deny --offline check bans licenses sources && $(TOOLS)/bin/cargo-machete; \
	else \
		echo "dependencies are not checked: 'make tools' installs cargo-deny and cargo-machete"; \
	fi

tools: ## install cargo-deny and cargo-machete, for lint, outside the repository
	cargo install --locked --root $(TOOLS) $(CARGO_DENY) $(CARGO_MACHETE)

bench: ## measure what docs/performance.md reports (PODS=100000 for a larger cluster)
	@dev/devcluster.sh build control-plane
	PODS=$(PODS) cargo bench

codegen: checkout ## rewrite the generated files: CRDs, RBAC, reference
	UPDATE=1 cargo test --test codegen

clean: ## remove what this repository made on the host: the cluster, servers, tools, build output
	@dev/devcluster.sh down
	@echo "removing $(CACHE) and $(CARGO_TARGET_DIR)"
	@rm -rf $(CACHE) $(CARGO_TARGET_DIR)
