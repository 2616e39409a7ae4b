"""The importance criteria, one file each; `fertool.registry.CRITERIA` finds them."""
