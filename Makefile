# Tests that need more than `cargo test` (README.md). Run as root.

.PHONY: test test-vm

test:
	scripts/test

# The full-kernel tier, all of it: virtual machines under emulation.
test-vm:
	scripts/test-vm
