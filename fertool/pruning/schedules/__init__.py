"""The schedules of pruning, one file each; `fertool.registry.SCHEDULES` finds them."""
