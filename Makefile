.DEFAULT_GOAL := help
.PHONY: help demo test soak bench lint unit integration clients fmt parts clean-parts

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Show it: KMS keys, sends over one WebSocket, receipts that stream back
	@scripts/demo

test: ## Everything: format, lints, unit, integration and client tests
	@scripts/test

soak: ## Kill the gateway KILLS times (100); STREAMS (170) faults of each kind under its streams: KILLS=1000 ON=anvil,geth,simulator SEED=1 FAULTS=all
	@KILLS=$(KILLS) ON=$(ON) SEED=$(SEED) FAULTS=$(FAULTS) STREAMS=$(STREAMS) CLIENTS=$(CLIENTS) scripts/soak

bench: ## Measure the path through a KMS of limited quota, release build: BENCH="storm --seconds 20" (all)
	@scripts/bench $(BENCH)

lint: ## Format check and clippy
	@scripts/test format lint

unit: ## Unit tests
	@scripts/test unit

integration: ## Tests of the binary against a real node and a KMS emulator (client tests included)
	@scripts/test integration

clients: ## Only the tests with clients that others wrote
	@scripts/test clients

fmt: ## Format the code
	@cargo fmt --all

parts: ## Install what tests and demo run against into .parts/
	@scripts/parts

clean-parts: ## Remove .parts/
	@rm -rf .parts
