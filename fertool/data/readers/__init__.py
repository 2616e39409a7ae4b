"""The formats of data, one file each; `fertool.registry.READERS` finds them."""
