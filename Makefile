# make demo   shows the collection at work on this machine
# make test   runs all tests and checks
# Both set up what they need first: missing Debian packages, and environments in .venv/.
# make test-lab adds the tests in virtual machines with real storage; the first time it builds their image.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-lab lab lab-shell lab-stop unit integration sanity lint docs-lint format lock build clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup:  ## install what the demo and the tests need
	@dev/setup

demo:  ## show the collection at work here (DEMO_ARGS="--check --diff" goes to ansible-playbook)
	@dev/demo $(DEMO_ARGS)

test:  ## run all tests and checks that need no lab
	@dev/test

test-lab:  ## run the lab's tests: real storage, in virtual machines
	@dev/test lab -- $(PYTEST_ARGS)

lab:  ## start a virtual machine with real storage of all kinds, and leave it running
	@dev/lab start

lab-shell:  ## a shell in it
	@dev/lab shell

lab-stop:  ## stop it
	@dev/lab stop

unit:  ## unit tests with each Python (PYTEST_ARGS="-k name" goes to pytest)
	@dev/test unit -- $(PYTEST_ARGS)

integration:  ## tests with the real tools (PYTEST_ARGS too; as root for all of them)
	@dev/test integration -- $(PYTEST_ARGS)

sanity:  ## ansible-test sanity, with no ignore file
	@dev/test sanity

lint:  ## ruff, mypy, ansible-lint, and a build of the collection
	@dev/test lint

docs-lint:  ## documentation of the modules, and the changelog's fragments
	@dev/test docs

format:  ## put the code into ruff's format, mend what can be mended
	@dev/run ruff check --fix .
	@dev/run ruff format .

lock:  ## resolve requirements/*.in anew
	@dev/lock

build:  ## build the collection's archive into .cache/build
	@dev/run ansible-galaxy collection build --force --output-path .cache/build

clean:  ## remove what the targets made in the clone
	rm -rf .venv .cache .ansible
