"""The zoo of architectures, and building, loading and saving of models."""

from fertool.models.activation_replacement import replace_activations
from fertool.models.architecture import architecture_names, small_input
from fertool.models.build import (
    adapt_to_classes,
    build,
    create,
    load_model,
    pack_model,
    require_static,
    save_model,
    stored_size_bytes,
    with_random_weights,
)

__all__ = [
    "adapt_to_classes",
    "architecture_names",
    "build",
    "create",
    "load_model",
    "pack_model",
    "replace_activations",
    "require_static",
    "save_model",
    "small_input",
    "stored_size_bytes",
    "with_random_weights",
]
