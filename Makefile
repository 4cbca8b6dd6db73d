# Every target sets up what it needs. Ports and the rest are variables: make run CLOUD_PORT=4567 (see `make help`).
PYTHON ?= python3
LOCAL := PYTHONPATH=tests/local .local/venv/bin/python -m landfall_local
# Finds unused dependencies; pinned, so that a new release can't break the check.
MACHETE_VERSION := 0.9.2
# Tests the tests; pinned, because another release makes other mutants.
MUTANTS_VERSION := 27.1.0
# Searches for inputs that break a parser.
FUZZ_VERSION := 0.13.2

.DEFAULT_GOAL := help
.PHONY: help prepare run demo up down status logs sweep explain receipt twin token check test simulate big-file cost fuzz mutants package bench

help: ## This list
	@echo "make <target> [VARIABLE=value]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: CLOUD_PORT=4566 (AWS), TWIN_PORT=9100 and STORE_PORT=9101 (the twin), CONFIG=path of your landfall.toml,"
	@echo "           SINK_SECRET=whsec_... and SINK_BUCKET=name (for what CONFIG declares; without them one is made),"
	@echo "           PYTHON=python3, TESTS=words that select end-to-end tests (pytest -k), TRANSFER=id and SITE=name (explain, receipt),"
	@echo "           SEEDS=1000 and FROM=0 (simulate: how many seeds, and the first one),"
	@echo "           SIZE=2G and RATE=5 (big-file: the file's size, and how many times faster time passes),"
	@echo "           TARGET=name (fuzz: one target instead of all), SECONDS=60 (for all together), KEEP=1 (keep what was found)"

run: prepare ## Deploy locally, show a migration and a failed one that is re-run, stay up until Ctrl-C
	@$(LOCAL) run

demo: prepare ## The same as run, but leave when it is done
	@$(LOCAL) demo

up: prepare ## Deploy locally, without a demo, and keep running in the background; CONFIG=path takes your landfall.toml
	@$(LOCAL) up

down: prepare ## End what `make up` started (and what a killed run left)
	@$(LOCAL) down

status: prepare ## What is up, its URLs, its queues and its transfers
	@$(LOCAL) status

logs: prepare ## Follow the functions' logs
	@$(LOCAL) logs

sweep: prepare ## Run the sweeper now and print its answer
	@$(LOCAL) sweep

explain: prepare ## How one transfer does, in a sentence, and its timeline: TRANSFER=id, SITE=name if two sites have that id
	@$(LOCAL) explain "$(TRANSFER)" $(if $(SITE),--site "$(SITE)")

receipt: prepare ## What became of a transfer and its records, signed, and its exceptions as files: TRANSFER=id (otherwise the last one), SITE=name
	@$(LOCAL) receipt "$(TRANSFER)" $(if $(SITE),--site "$(SITE)")

twin: prepare ## Start the twin (the platform's stand-in) until Ctrl-C
	@$(LOCAL) twin

token: prepare ## Print an Authorization header for an event of your own: SITE=name of a site of the twin
	@$(LOCAL) token $(or $(SITE),harbour)

check: prepare .local/tools/bin/cargo-machete ## Formatting, clippy, docs, fuzz targets compile, template, unused dependencies
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTFLAGS="--cfg fuzzing" cargo check --locked --manifest-path fuzz/Cargo.toml
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	.local/venv/bin/cfn-lint infra/template.yaml
	.local/tools/bin/cargo-machete

test: prepare ## All tests: unit, protocol, contract, end-to-end on the local cloud; ends with the count
	@$(LOCAL) test $(if $(TESTS),--select "$(TESTS)")

simulate: ## Landfall in virtual time, everything going wrong: SEEDS=1000 of them, FROM=0; shows and keeps a failing one
	@cargo run --locked --profile local -p landfall-simulation -- seeds --seeds $(or $(SEEDS),1000) --from $(or $(FROM),0)

big-file: ## A file of SIZE=2G to an HTTP sink: URLs that expire, connections that are cut, a worker that is killed; prints what holds
	@cargo run --locked --profile local -p landfall-big-file -- --size $(or $(SIZE),2G) $(if $(RATE),--rate $(RATE))

cost: ## What a million events, a gigabyte and a transfer cost on AWS, line by line, from what the tests have counted; builds nothing
	@PYTHONPATH=tests/local $(PYTHON) -m landfall_local.cost

fuzz: .local/tools/bin/cargo-fuzz ## Search for bytes that break a parser: SECONDS=60, TARGET=name of one (default: all share the time)
	@PATH="$(CURDIR)/.local/tools/bin:$$PATH" $(PYTHON) fuzz/run.py $(TARGET) --seconds $(or $(SECONDS),60) $(if $(KEEP),--keep)

mutants: .local/tools/bin/cargo-mutants ## Whether the tests notice changed code: the core and the store's conditions; takes hours
	PATH="$(CURDIR)/.local/tools/bin:$$PATH" cargo mutants --package landfall-transfer --package landfall-tracking --output .local

package: prepare ## The three zips for AWS below .local/package, for each instruction set that this machine can build for; ARCHITECTURE=arm64 or x86_64 for one
	@$(LOCAL) package $(if $(ARCHITECTURE),--architecture $(ARCHITECTURE))

bench: prepare ## What the functions and their hot paths cost here, beside Node, Python and their floors; ONLY=functions or hot-paths; some 15 minutes
	@$(LOCAL) bench $(foreach part,$(ONLY),--only $(part))

prepare:
	@$(PYTHON) tests/local/prepare.py

.local/tools/bin/cargo-machete: Makefile
	cargo install --locked --root .local/tools --version $(MACHETE_VERSION) cargo-machete
	@touch $@

.local/tools/bin/cargo-mutants: Makefile
	cargo install --locked --root .local/tools --version $(MUTANTS_VERSION) cargo-mutants
	@touch $@

.local/tools/bin/cargo-fuzz: Makefile
	cargo install --locked --root .local/tools --version $(FUZZ_VERSION) cargo-fuzz
	@touch $@
