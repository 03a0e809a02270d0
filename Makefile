# Tests that need more than `cargo test` (README.md). Run as root.

.PHONY: test test-vm

test:
	scripts/test

# The full-kernel tier: three virtual machines under emulation; half an hour on two cores.
test-vm:
	vagrant/vm up
	vagrant/vm snapshot booted
	cargo test --test vm -- --ignored --test-threads=1; status=$$?; vagrant/vm down; exit $$status
