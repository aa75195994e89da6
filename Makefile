# `make demo` and `make test` need nothing but Debian, Python 3.11 and root or sudo.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
SHORT := not soak and not gpu

.PHONY: help setup setup-train setup-services demo models test test-gpu soak bench check format clean

help: ## Say what the targets do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 20

$(VENV)/.runtime: pyproject.toml $(CONSTRAINTS)
	@echo "Setting up $(VENV) with the runtime and the developer's tools."
	@bash scripts/setup-python.sh "$(PYTHON)" "$(VENV)"
	@touch $@

$(VENV)/.train: $(VENV)/.runtime
	@echo "Installing the extras 'train' (torch: a large download), 'compile' and 's3'."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[train,compile,s3]'
	@touch $@

setup: $(VENV)/.train ## Everything a developer needs into .venv

setup-train: $(VENV)/.train

setup-services: ## The real servers that the tests start: RTSP, Kafka, Prometheus; kustomize; Chromium
	@bash scripts/setup-services.sh

demo: $(VENV)/.runtime ## Simulated RTSP cameras, the monitor on them, and its page. DEMO_SECONDS=60 ends it; VIDEO=dir plays your clips
	@bash scripts/setup-services.sh rtsp
	@$(BIN)/python -m demo

models: $(VENV)/.train ## Train the bundle `demo` anew; with FIGHT_CLIPS=dir the bundle `fight` too
	@$(BIN)/python -m models.shipped demo
	@if [ -n "$(FIGHT_CLIPS)" ]; then $(BIN)/python -m models.shipped fight --data "$(FIGHT_CLIPS)"; \
		else echo "FIGHT_CLIPS=dir names the clips of the bundle 'fight'; it was left as it is."; fi

test: $(VENV)/.train setup-services ## All tests, with the real servers
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -m "$(SHORT) and not alone" --durations=25 --cov --cov-report=; together=$$?; \
		$(BIN)/python -m pytest -m "$(SHORT) and alone" --cov --cov-append --cov-report=term:skip-covered; alone=$$?; \
		exit $$((together ? together : alone))

test-gpu: $(VENV)/.train ## The tests that need an NVIDIA GPU; TensorRT's libraries come from NVIDIA
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[tensorrt]'
	@$(BIN)/python -m pytest -m gpu

soak: $(VENV)/.train setup-services ## The long tests, an hour: faults at random for 20 minutes, each a hundred times; brokers and monitors killed
	@$(BIN)/python -m pytest -m soak -rP

bench: $(VENV)/.train setup-services ## All benchmarks; tables on the screen, JSON in var/benchmarks
	@mkdir -p var/benchmarks
	@for name in $$(cd benchmarks && ls *.py */__main__.py | sed -E '/^__init__/d; s,(/__main__)?\.py$$,,'); do \
		$(BIN)/python -m benchmarks.$$name --json var/benchmarks/$$name.json || exit 1; done

check: $(VENV)/.train ## Format, lint, types, import contracts, dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@bash scripts/check-tensorrt-types.sh
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

format: $(VENV)/.runtime ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove what the targets made; var/ may hold undelivered alerts and stays
	rm -rf $(VENV) .cache var/benchmarks .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov dist build
