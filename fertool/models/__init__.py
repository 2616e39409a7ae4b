"""The zoo, and the way from a spec to a module and back."""

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
from fertool.models.build import (
    build,
    create,
    for_classes,
    load_model,
    randomised,
    save_model,
    static,
    stored_size,
)
from fertool.models.friendly import int8_friendly
from fertool.models.registry import architecture_names, register

__all__ = [
    "architecture_names",
    "build",
    "create",
    "for_classes",
    "int8_friendly",
    "load_model",
    "randomised",
    "register",
    "save_model",
    "static",
    "stored_size",
]
