"""The face detectors, one file each; `fertool.registry.DETECTORS` finds them."""
