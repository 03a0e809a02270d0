# Tests that need more than `cargo test` (README.md). Run as root.

.PHONY: test test-vm test-vm-xen

test:
	scripts/test

# The full-kernel tier, all of it: virtual machines under emulation.
test-vm:
	scripts/test-vm

# The same with Xen hosts, which boot and answer more slowly: not part of test-vm.
test-vm-xen:
	STOR_VM_KIND=xen scripts/test-vm
