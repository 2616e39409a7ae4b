"""Methods of distillation, one file each; `fertool.registry.DISTILLATION_METHODS` finds them."""
