# Marquee. `make help` lists what can be done; the work itself is in local/ (Python).

# The first Python on the path that is new enough; another one: make run PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$python >/dev/null 2>&1 && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
EDGE_PORT ?= 8080
SHOWS ?= 50000
TESTS ?= tests
TEST_WORKERS ?= 2
PROVE_MINUTES ?= 30
BENCH ?= core streams overload sustained growth
export EDGE_PORT

.DEFAULT_GOAL := help
.PHONY: help setup run test lint types contracts pytest seed reset stop status mutants prove bench lock

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## virtual environment, packages, code generated from the contracts (skipped when up to date)
	@test -n "$(PYTHON)" || { echo "marquee: Python 3.11 or newer is needed, and none is on the path; install one, or name it: make run PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) local/bootstrap.py

run: setup ## start everything on this machine; EDGE_PORT=8080 and EDGE_RATE_LIMITS=off change it
	@exec $(BIN)/python -m local up

test: setup contracts lint types pytest ## every check and every test

contracts: setup ## lint the contracts
	@echo "== contracts"
	@PATH="$(CURDIR)/$(BIN):$$PATH" buf lint gen/contracts.binpb --path marquee

lint: setup ## ruff: rules and format
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## mypy, strict
	@echo "== mypy"
	@$(BIN)/mypy

# pytest ends with 5 when TESTS has none of the kind.
pytest: setup ## the tests alone; TESTS=tests/unit chooses some
	@echo "== pytest, $(TEST_WORKERS) at a time"; \
	$(BIN)/python -m pytest $(TESTS) -m "not alone" -n $(TEST_WORKERS); together=$$?; \
	echo "== pytest, one at a time"; \
	$(BIN)/python -m pytest $(TESTS) -m alone; alone=$$?; \
	case $$together-$$alone in 0-0|0-5|5-0) ;; *) exit 1 ;; esac

seed: setup ## a day of SHOWS=50000 more shows in the running stack
	@$(BIN)/python -m local seed --shows $(SHOWS)

status: setup ## what each part of the running stack does
	@$(BIN)/python -m local status

stop: setup ## stop the running stack, from another terminal
	@$(BIN)/python -m local stop

reset: setup ## remove all data of the stack on this machine
	@$(BIN)/python -m local reset

mutants: setup ## break the product on purpose and see its tests go red
	@$(BIN)/python -m tests.mutants

prove: setup ## seats, money and events under fire, for PROVE_MINUTES=30; goes on where it stopped; docs/proof.md
	@$(BIN)/python -m tests.prove --minutes $(PROVE_MINUTES) $(if $(PROVE_SEED),--seed $(PROVE_SEED)) \
		$(if $(PROVE_ONLY),--only $(PROVE_ONLY)) $(if $(PROVE_AGAIN),--again $(PROVE_AGAIN))

bench: setup ## every figure of docs/bench.md beside its floor, 45 min; BENCH=core: the first table, 5 min
	@for subject in $(BENCH); do echo "== bench $$subject"; $(BIN)/python -m bench $$subject || exit 1; done

lock: setup ## pin what is installed in .venv as requirements.lock
	@$(BIN)/python -m local.pins
