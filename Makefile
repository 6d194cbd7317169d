# From a fresh clone, with Python 3.10 or newer and make:
#   make demo   installs everything into .venv, then serves the page at a printed address
#   make test   installs the same, then runs all tests
# Use another interpreter with `make demo PYTHON=python3.12`.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: help demo test lint leaderboard screenshots clean

help:
	@sed -n 's/^# \{0,1\}//p' $(MAKEFILE_LIST) | head -4

demo: $(READY)
	$(VENV)/bin/python app.py

test: $(READY)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The tables. With folders of data sets (FERPLUS=DIR DIFFUSIONFER=DIR RAVDESS=DIR COCO_PERSON=DIR), the results of the
# bundled models on them are computed anew first.
RUN := $(VENV)/bin/python -m eval run --model
FACES := esr_compact.ferplus emenet_v.open_student
BUNDLED = $(notdir $(wildcard emotion/weights/$(1)*))
leaderboard: $(READY)
	$(foreach model,$(if $(FERPLUS),$(FACES)),$(RUN) $(model) --dataset ferplus --data $(FERPLUS) --split valid &&) true
	$(foreach model,$(if $(DIFFUSIONFER),$(FACES)),$(RUN) $(model) --dataset diffusionfer --data $(DIFFUSIONFER) \
	  --split test &&) true
	$(foreach model,$(if $(RAVDESS),$(call BUNDLED,avfusion_it)),$(RUN) $(model) --dataset ravdess --data $(RAVDESS) \
	  --option visual=none &&) true
	$(foreach model,$(if $(wildcard $(RAVDESS)/ferplus),$(call BUNDLED,avfusion_it)),$(RUN) $(model) --dataset ravdess \
	  --data $(RAVDESS) --option visual=borrowed &&) true
	$(foreach model,$(if $(COCO_PERSON),$(call BUNDLED,benet)),$(RUN) $(model) --dataset coco_person \
	  --data $(COCO_PERSON) --split val &&) true
	$(VENV)/bin/python -m eval leaderboard

screenshots: $(READY)
	$(VENV)/bin/python tests/screenshots.py runs/screenshots

clean:
	rm -rf $(VENV) build dist *.egg-info

$(READY): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'Python 3.10 or newer is needed and $(PYTHON) is not; name another: make PYTHON=python3.12 demo' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --requirement requirements.txt
	@touch $@
