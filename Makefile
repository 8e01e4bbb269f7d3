# `make` lists what can be done. Everything is installed into .venv and nowhere else; `make clean` takes it away again.
# Another Python: `make demo PYTHON=python3.12`. Works with the GNU make of macOS (3.81).

PYTHON ?= python3
VENV := .venv/bin

# Shows each package as it is downloaded, and leaves out the hundreds of lines about the others.
PIP_INSTALL = PYTHONUNBUFFERED=1 $(VENV)/python -m pip install --disable-pip-version-check --progress-bar=off --editable
QUIETER = grep --line-buffered -E '^ *(Downloading [^ ]*(whl|gz) |Installing collected|Successfully|ERROR|error)' | cut -c 1-100
EXPLAIN_PIP = { echo "pip could not install Tunebook; its reason stands above. No network, or no wheel of MLX for this \
machine: there are wheels for Apple silicon (macOS 14 or newer) and for Linux with glibc 2.35 or newer \
(this is $$(uname -sm), $$(ldd --version 2>/dev/null | head -n 1))." >&2; exit 1; }

OUT ?= out
# Of all stages and notebooks, the one `make parity` and `make test-notebooks` are about.
STAGE ?=
# Of all objectives over answers, the one `make parity-preferences` compares with TRL.
OBJECTIVE ?= DPO
NOTEBOOK ?= *
PARITY_MODEL ?= HuggingFaceTB/SmolLM2-135M-Instruct

.PHONY: help demo notebooks doctor report lint test test-as-gpu test-mac test-lowest test-binder test-notebooks notebook \
	notebooks-test parity parity-together parity-preferences clean

help:
	@echo "make demo       train a small model from data to a file, in a few minutes"
	@echo "make notebooks  open the tutorials in JupyterLab"
	@echo "make doctor     check this machine: versions, backend, speed, and what to mend"
	@echo "make report     train eight steps here and with mlx-lm; a report on this machine, to send"
	@echo "make test       lint, types and tests"
	@echo "make lint       the first two of these"
	@echo "make test-as-gpu  the tests that compute, as on an Apple GPU and in bfloat16"
	@echo "make clean      remove .venv and everything built"

demo: .venv/user
	$(VENV)/python -m tunebook demo

notebooks: .venv/user
	$(VENV)/jupyter lab notebooks

doctor: .venv/user
	$(VENV)/python -m tunebook doctor

report: .venv/user
	@mkdir -p $(OUT)
	$(VENV)/python -m tunebook doctor --gpu > $(OUT)/report.json
	@echo "Written to $(OUT)/report.json: it holds no path, and no name of you or of your machine."

# Two workers with a thread each: with more threads than cores, OpenMP's wait for each other and burn the time of both.
THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
TEST := $(THREADS) $(VENV)/python -m pytest -n 2 --durations=40 --durations-min=5

# Once more what computes, as on an Apple GPU (tests/as_gpu.py), but for what is long in bfloat16 on a CPU.
COMPUTES := $(addprefix tests/,fast objectives train models export samples parity) tests/memory/test_memory.py
AS_GPU := --as-gpu -m 'not browser and not real_model' $(COMPUTES)

lint: .venv/dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/basedpyright --pythonpath $(VENV)/python

test: lint
	$(TEST)

test-as-gpu: .venv/dev
	$(TEST) $(AS_GPU)

# For borrowed machines of few GB: no browser, and no torch that computes everything a second time.
WITHOUT_BROWSER := -m 'not browser' --ignore=tests/parity

test-mac: .venv/dev
	$(TEST) $(WITHOUT_BROWSER)

# The oldest releases pyproject.toml names, in an environment of their own. They warn of those younger than themselves.
LOWEST := .venv/lowest
test-lowest: .venv/made
	$(VENV)/python -m pip install --disable-pip-version-check --quiet uv
	$(VENV)/uv venv --quiet --seed --clear --python $(VENV)/python $(LOWEST)
	$(VENV)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	$(THREADS) $(LOWEST)/bin/python -m pytest -n 2 -W ignore::DeprecationWarning $(WITHOUT_BROWSER)

# What Binder does with binder/, in an empty environment of the Python that binder/environment.yml names.
BINDER_PYTHON ?= python3.12
test-binder: .venv/dev
	$(THREADS) TUNEBOOK_BINDER=$(BINDER_PYTHON) $(VENV)/python -m pytest -s tests/top/test_binder.py

# In copies, because a notebook leaves what it makes beside itself; each becomes the notebook as it ran.
test-notebooks: .venv/dev
	@mkdir -p $(OUT)/notebooks
	cp notebooks/$(NOTEBOOK).ipynb $(OUT)/notebooks
	$(VENV)/python -m pytest --nbmake --nbmake-timeout=3600 --overwrite $(OUT)/notebooks/$(NOTEBOOK).ipynb

# What one shows, anew, in place of what is committed.
notebook: .venv/dev
	$(VENV)/python -m tests.notebooks.executed $(NOTEBOOK) $(OUT)/notebooks

# The same on a small scale, all of them: tests/notebooks/smoke.py has the values, and what must hold behind which cell.
SMOKE_TESTS := $(OUT)/notebooks-test
notebooks-test: .venv/dev
	$(VENV)/python -m tests.notebooks.smoke $(SMOKE_TESTS)
	$(THREADS) $(VENV)/python -m pytest -n 2 --nbmake --nbmake-timeout=1800 -p no:cacheprovider $(SMOKE_TESTS)

parity: .venv/dev
	@mkdir -p $(OUT)/parity
	$(VENV)/python -m tunebook.parity --model $(PARITY_MODEL) $(if $(STAGE),--stages '$(STAGE)') \
		--json '$(OUT)/parity/$(or $(STAGE),all).json'

parity-together: .venv/dev
	$(VENV)/python -m tunebook.parity --together $(OUT)/parity

parity-preferences: .venv/dev
	@mkdir -p $(OUT)/preferences
	$(VENV)/python -m tunebook.parity --model $(PARITY_MODEL) --objective $(OBJECTIVE) $(if $(STAGE),--stages '$(STAGE)') \
		--json '$(OUT)/preferences/$(OBJECTIVE).json'

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a file is newer than pyproject.toml when its extras are installed.
.venv/user: .venv/made pyproject.toml
	@echo "Installing Tunebook into .venv (about 1 GB; a minute or more the first time)"
	@bash -o pipefail -c "$(PIP_INSTALL) '.[notebook,verify,kquants]' | $(QUIETER)" || $(EXPLAIN_PIP)
	@touch $@

.venv/dev: .venv/made pyproject.toml
	@echo "Installing Tunebook and the tools for working on it into .venv"
	@bash -o pipefail -c "$(PIP_INSTALL) '.[dev]' | $(QUIETER)" || $(EXPLAIN_PIP)
	@touch $@

.venv/made:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Install Python 3.11 or newer \
(Debian and Ubuntu: apt-get install python3 python3-venv; macOS: brew install python), or name one: \
make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: \
Tunebook needs 3.11 or newer. If you have one under another name: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments. \
Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@rm -rf .venv
	$(PYTHON) -m venv .venv
	@touch $@
