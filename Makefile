# Everything a newcomer needs: `make demo` and `make test`. Both set the machine up first (a virtual environment in .venv).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/pip --disable-pip-version-check -q
DEER := $(BIN)/deer

# Traffic of demos and tests stays on this machine.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export PYTHONUNBUFFERED := 1

.PHONY: setup demo demo-voice test test-slow lint format clean

setup: $(READY)

$(READY): constraints.txt setup.py pyproject.toml $(wildcard msgs/*/* msgs/*.*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "deer_ros needs CPython 3.11 for its ROS 2 wheels: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt pip setuptools wheel
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[policy,train,quantisation,sim,lerobot,recording,cli,ros,security,speech,test]'
	# Tests compare with its layers; what it asks for itself is years old.
	$(PIP) install -c constraints.txt --no-deps open-flamingo
	$(PIP) install -c constraints.txt ./msgs
	touch $@

demo: setup
	$(DEER) demo

# Somebody talks to the robot; fetches the weights for it first (100 MB).
demo-voice: setup
	$(DEER) models fetch whisper-tiny.en minilm-l6
	$(DEER) talk

# What runs over ROS, and is about time, has the machine to itself; the rest shares its cores.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --ignore=tests/ros
	$(BIN)/python -m pytest -m 'not slow' tests/ros

test-slow: setup
	$(PIP) install -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .cache runs build install log *.egg-info .pytest_cache .mypy_cache .ruff_cache
