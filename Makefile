# What people type here. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Packages that building and the lab need. Rust itself is not among them: see `make rust`.
PACKAGES := build-essential pkg-config clang libclang-dev libdevmapper-dev linux-libc-dev \
	user-mode-linux lvm2 dmsetup thin-provisioning-tools e2fsprogs kmod iproute2 \
	util-linux procps psmisc python3 jq fio
# What `make packages`, the tests of the packages and `make test-full` need beyond that.
PACKAGE_TOOLS := qemu-system-x86 pandoc dpkg-dev rpm lintian rpmlint mmdebstrap man-db valgrind
RUST_MINIMUM := 1.93
# Scenarios side by side. Each boots two hosts, which keep one core busy: they wait more than they work.
JOBS ?= $(shell n=$$(($$(nproc) / 2)); echo $$((n > 2 ? n : 2)))

.PHONY: help
help: ## lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: rust
rust: ## checks that a Rust toolchain new enough is here
	@have="$$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)"; \
	if [ -z "$$have" ] || [ "$$(printf '%s\n' $(RUST_MINIMUM) "$$have" | sort -V | head -n1)" != $(RUST_MINIMUM) ]; then \
		echo "ftdm needs Rust $(RUST_MINIMUM) or newer; found: $${have:-none}." >&2; \
		echo "Install it with rustup (https://rustup.rs; packaged from Debian 13 on)" >&2; \
		echo "or with your distribution's cargo package where that is new enough." >&2; \
		exit 1; \
	fi

.PHONY: package-tools
package-tools: PACKAGES += $(PACKAGE_TOOLS)
package-tools: deps

.PHONY: deps
deps: rust ## installs the Debian packages that building and the lab need
	@missing=(); for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing+=($$package); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "Installing Debian packages: $${missing[*]}"; \
		if [ $$(id -u) -ne 0 ]; then echo "Run this as root, or install them yourself." >&2; exit 1; fi; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $${missing[@]} >/dev/null; \
	fi

.PHONY: machine
machine: deps ## says in seconds whether the lab works on this machine, and what to do if it does not
	@tests/lab/lab doctor --quick

.PHONY: build
build: deps ## builds everything
	cargo build --workspace --all-targets

.PHONY: packages
packages: package-tools ## builds a .deb and an .rpm, in target/packages; ARCH=arm64 cross-compiles them
	packaging/build $(if $(ARCH),--arch $(ARCH))

.PHONY: test-packages
test-packages: packages ## checks them, and installs the .deb on two hosts of the lab that boot systemd
	tests/packages
	tests/lab/lab run tests/lab/selftest/debian.sh tests/scenarios/system/*.sh

.PHONY: lint
lint: deps ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

.PHONY: deny
deny: rust ## licences, bans and sources of the dependencies
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check bans licenses sources
	cargo deny --manifest-path tests/fuzz/libfuzzer/Cargo.toml --config deny.toml check bans licenses sources

.PHONY: check
check: machine ## before each commit, three minutes: format, clippy, unit and property tests, three scenarios
	tests/run --jobs $(JOBS) --quick

.PHONY: test
test: machine ## unit, property and simulation tests, then the lab scenarios
	tests/run --jobs $(JOBS)

.PHONY: test-full
test-full: package-tools machine ## formatting, clippy, dependency policy, `make test` with the long scenarios on every kernel, the other Debian, the packages
	$(MAKE) lint deny
	tests/run --jobs $(JOBS) --full
	tests/bench/instructions
	tests/other-debian
	$(MAKE) test-packages

MINUTES ?= 30

.PHONY: soak
soak: deps ## the simulation with ever new seeds, then the fuzzers; MINUTES=30
	tests/fuzz/soak --minutes $(MINUTES)

.PHONY: mutants
mutants: deps ## shows that the simulation catches deliberate faults
	cargo run --quiet -p ftdm-sim --features mutants -- --mutants

.PHONY: bench
bench: deps ## the volume's speed beside the raw one and DRBD, in the lab; GROUND=uml, qemu, icount or all
	tests/bench/run $(if $(GROUND),--ground $(GROUND))

.PHONY: demo
demo: machine ## protects a volume, kills its host, promotes the backup, checks every record
	tests/demo/demo

.PHONY: book
book: rust ## the manual as web pages, in target/book
	@mdbook --version >/dev/null 2>&1 || cargo install --locked mdbook
	mdbook build docs

.PHONY: clean
clean: ## removes what was built and what the lab left
	cargo clean
