"""fertool: from a trained facial-expression model to a small device, one file-to-file command at a time."""

__version__ = "0.1.0"
