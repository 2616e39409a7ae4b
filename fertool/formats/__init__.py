"""The formats of exported files, one file each; `fertool.registry.FORMATS` finds them."""
