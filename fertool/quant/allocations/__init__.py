"""The allocations of bits, one file each; `fertool.registry.ALLOCATIONS` finds them."""
