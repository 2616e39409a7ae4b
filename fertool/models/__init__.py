"""The zoo of architectures, and building, loading and saving of models."""

# Importing a family's module registers its architectures.
from fertool.models import ean as ean
from fertool.models import eff_resnet as eff_resnet
from fertool.models import efficientnet as efficientnet
from fertool.models import micro_expnet as micro_expnet
from fertool.models import mobilenet_v2 as mobilenet_v2
from fertool.models import mobilenet_v3 as mobilenet_v3
from fertool.models import nano_resnet as nano_resnet
from fertool.models import resnet as resnet
from fertool.models import shufflenet_v2 as shufflenet_v2
from fertool.models.activation_replacement import replace_activations
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
from fertool.models.registry import architecture_names, register

__all__ = [
    "adapt_to_classes",
    "architecture_names",
    "build",
    "create",
    "load_model",
    "pack_model",
    "register",
    "replace_activations",
    "require_static",
    "save_model",
    "stored_size_bytes",
    "with_random_weights",
]
