"""The architectures of the zoo, a family a file; `fertool.registry.ARCHITECTURES` finds them."""
