# Two commands to know: `make up` runs a mesh on this machine, `make test` proves the tree.
# Each does all of its own set-up on a fresh machine.

SHELL := /bin/sh
CARGO ?= cargo
DIR ?= .sonde
# Where `make bench` writes to.
REPORT ?= benches/report.json
# What `make chaos` runs.
CHAOS_PROFILE ?= release
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
test-deep: test-deep-sim test-deep-chaos ## Longer runs of what `make test` only touches: 2,000 simulated meshes, 40 kills of real processes

.PHONY: test-deep-sim
test-deep-sim:
	@ops/setup.sh test
	@$(CARGO) build --locked --workspace --bins
	@"$(CARGO_TARGET_DIR)/debug/sonde-sim" sweep --from 500 --to 2500

.PHONY: soak
soak: ## Simulate 50,000 meshes and log it; FROM=0 TO=50000 name the range, the same command goes on where it was left
	@$(CARGO) build --locked --release -p sonde-integration-tests --bin sonde-sim
	@"$(CARGO_TARGET_DIR)/release/sonde-sim" soak --from $(or $(FROM),0) --to $(or $(TO),50000) \
		--checkpoint "$(CARGO_TARGET_DIR)/soak.checkpoint" --log docs/soak/log.md

.PHONY: test-deep-chaos
test-deep-chaos:
	@ops/setup.sh test
	@$(CARGO) build --locked --workspace --bins
	@"$(CARGO_TARGET_DIR)/debug/sonde-chaos" run --for 200s --kills 40 --disturbances 24 --rate 400 \
		--keep "$(CARGO_TARGET_DIR)/chaos-logs"

.PHONY: chaos
chaos: ## Kill the parts of a mesh for an hour and count every slot; FROM=0 TO=8 name ranges, RATE samples per second
	@ops/setup.sh test
	@$(CARGO) build --locked --profile $(CHAOS_PROFILE) --workspace --bins
	@"$(CARGO_TARGET_DIR)/$(CHAOS_PROFILE)/sonde-chaos" run --from $(or $(FROM),0) --to $(or $(TO),8) --rate $(or $(RATE),2800) \
		$(addprefix --seed ,$(SEED)) --regions 4 --probes 2 --for 400s --kills 40 --disturbances 24 --postgres-stop 15m \
		--commit "$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)" --log docs/chaos/log.md \
		--checkpoint "$(CARGO_TARGET_DIR)/chaos.json" --keep "$(CARGO_TARGET_DIR)/chaos-logs"

.PHONY: bench
bench: ## Measure what we claim; writes benches/report.json; OUTAGE=30m lengthens the outage, ONLY=outage measures that alone
	@ops/setup.sh bench
	@$(CARGO) build --locked --release --workspace --bins
	@"$(CARGO_TARGET_DIR)/release/sonde-bench" --report "$(REPORT)" $(if $(OUTAGE),--outage $(OUTAGE)) $(addprefix --only ,$(ONLY))

.PHONY: fmt
fmt: ## Format the tree
	@$(CARGO) fmt --all
