# Two commands to know: `make up` runs a mesh on this machine, `make test` proves the tree.
# Each does all of its own set-up on a fresh machine.

SHELL := /bin/sh
CARGO ?= cargo
DIR ?= .sonde
# The profile of `make up`; `dev` uses what the tests have built.
PROFILE ?= mesh
# Exported, so that cargo and we mean the same folder, whatever the user's cargo configuration says.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN := $(CARGO_TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: up
up: build ## Run a mesh on this machine and show its samples; DETACH=1 returns when it is healthy
	@"$(BIN)/sonde" mesh up --dir "$(DIR)" $(if $(filter-out 0 no false,$(DETACH)),--detach)

.PHONY: down
down: ## Stop the mesh; its data stays
	@ls "$(DIR)"/run/*.json >/dev/null 2>&1 || { echo "nothing is running"; exit 0; }; \
	for sonde in "$(BIN)/sonde" "$(CARGO_TARGET_DIR)"/*/sonde; do \
		[ ! -x "$$sonde" ] || exec "$$sonde" mesh down --dir "$(DIR)"; \
	done; \
	$(MAKE) --no-print-directory build && "$(BIN)/sonde" mesh down --dir "$(DIR)"

.PHONY: build
build: setup ## Build the programs that `make up` runs
	@$(CARGO) build --locked --profile $(PROFILE) --workspace --bins

.PHONY: setup
setup: ## Install what running needs: packages and the ClickHouse engine
	@ops/setup.sh run

.PHONY: test
test: ## Check form, lints, dependencies, and run every test
	@integration-tests/run.sh

.PHONY: test-deep
test-deep: ## Long runs; none yet
	@echo "no long runs yet"

.PHONY: bench
bench: ## Measure what we claim; writes benches/report.json
	@ops/setup.sh bench
	@$(CARGO) build --locked --release --workspace --bins
	@"$(CARGO_TARGET_DIR)/release/sonde-bench" --report benches/report.json

.PHONY: fmt
fmt: ## Format the tree
	@$(CARGO) fmt --all
