"""The runtimes, one file each; `fertool.registry.RUNTIMES` finds them."""
