# Everything a person types. `make serve` is all that is needed to try Trivium.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: serve install test check format clean

serve: .venv/.installed
	@exec $(BIN)/trivium serve

install: .venv/.installed

# vLLM for the CPU, or for CUDA where an NVIDIA GPU is present.
.venv/.installed: pyproject.toml deploy/install.py $(wildcard experts/kernels/*.[ch])
	@$(PYTHON) deploy/install.py

.venv/.installed-dev: .venv/.installed pyproject.toml
	@$(PYTHON) deploy/install.py --dev

test: .venv/.installed-dev
	$(BIN)/python -m pytest -q

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not e2e"

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info
