# Two commands to know: `make up` runs a mesh on this machine, `make test` proves the tree.
# Each does all of its own set-up on a fresh machine.

SHELL := /bin/sh
CARGO ?= cargo
DIR ?= .sonde
# The profile of `make up`; `dev` uses what the tests have built.
PROFILE ?= mesh
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: up
up: build ## Run a mesh on this machine and show its samples; DETACH=1 returns when it is healthy
	@$(BIN)/sonde mesh up --dir $(DIR) $(if $(DETACH),--detach)

.PHONY: down
down: ## Stop the mesh; its data stays
	@if [ -x $(BIN)/sonde ]; then $(BIN)/sonde mesh down --dir $(DIR); else echo "nothing is running: no mesh was built here"; fi

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
bench: setup ## Measure what we claim; writes benches/report.json
	@ops/setup.sh bench
	@$(CARGO) build --locked --release --workspace --bins
	@$(TARGET)/release/sonde-bench --report benches/report.json

.PHONY: fmt
fmt: ## Format the tree
	@$(CARGO) fmt --all
