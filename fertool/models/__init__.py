"""The zoo, and the way from a spec to a module and back."""

from fertool.models import efficientnet, micro_expnet, mobilenet_v2, mobilenet_v3, resnet, shufflenet_v2
from fertool.models.build import build, create, load_model, save_model
from fertool.models.registry import architecture_names, register

__all__ = ["architecture_names", "build", "create", "load_model", "register", "save_model"]

# Importing a family's module registers its architectures.
_FAMILIES = (efficientnet, micro_expnet, mobilenet_v2, mobilenet_v3, resnet, shufflenet_v2)
