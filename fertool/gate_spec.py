"""What the header of a dynamic network's file says of its profiles and of what chooses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from fertool.config.gate import Gate
from fertool.graph.ir import Graph
from fertool.strict_json import Difference, Fraction, Positive, WrongContentError

Entry = TypeVar("Entry")
MOST_PROFILES = 16
GATE_OPTIONAL_KEYS = ("thresholds", "routing")
"""Keys that stand in a header only where there is something to say."""

Margin = Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True)
class RoutingMetrics:
    """What the choice of profiles is worth: against the same shares of the images sent at random.

    `n` images of `metrics`. `profile_accuracies` are those of each profile on all of them.
    `random_accuracy` is expected where each profile gets as many images as it got, drawn at random;
    `difference` is the accuracy less that, with its 95 % interval, `paired_p` the two-sided p-value
    on the same images. `same_macs_accuracy` is the best that
    random images for single profiles reach at the same mean of multiply-accumulates.
    `cross_fitted`: the thresholds are calibrated on one half of the images for the other.
    """

    n: Positive
    accuracy: Fraction
    profile_accuracies: Annotated[tuple[Fraction, ...], Meta(max_length=MOST_PROFILES)]
    random_accuracy: Fraction
    difference: Difference
    difference_ci95: tuple[Difference, Difference]
    paired_p: Fraction
    same_macs_accuracy: Fraction
    cross_fitted: bool = False


@dataclass(frozen=True)
class GateSpec:
    """The profiles of a dynamic network and its gate.

    `profiles` are in order of size, the largest first; `hidden` are the units of the gate's layer,
    0 for a cascade. `shares` is the fraction of the images that each profile classified, of the
    images of `metrics`. A cascade has `thresholds`, one for each profile but the first: it decides
    where the difference of its two largest logits is that large or larger.
    """

    profiles: Annotated[tuple[Graph, ...], Meta(max_length=MOST_PROFILES)]
    hidden: Annotated[int, Meta(ge=0, le=4096)]
    shares: tuple[Fraction, ...]
    thresholds: Annotated[tuple[Margin, ...], Meta(max_length=MOST_PROFILES)] | None = None
    routing: RoutingMetrics | None = None

    @property
    def kind(self) -> Gate:
        """What chooses the profile of an image."""
        return "statistics" if self.thresholds is None else "cascade"

    def to_builtins(self) -> dict[str, Any]:
        """Return the entry of a header, the profiles apart."""
        data = asdict(replace(self, profiles=()))
        for name in GATE_OPTIONAL_KEYS:
            # So that files without them are the same bytes as before there were such fields.
            if data[name] is None:
                del data[name]
        return data

    def require_consistent(self) -> None:
        """Raise WrongContentError for parts that do not fit each other."""
        profiles = len(self.profiles)
        if len(self.shares) != profiles:
            raise WrongContentError(
                f"`gates` has {profiles} profiles and {len(self.shares)} shares"
            )
        if self.thresholds is None and self.hidden == 0:
            raise WrongContentError("`gates` has neither `hidden` units nor `thresholds`")
        if self.thresholds is not None and len(self.thresholds) != profiles - 1:
            raise WrongContentError(
                f"`gates` has {profiles} profiles and {len(self.thresholds)} thresholds"
            )
        routing = self.routing
        if routing is not None and len(routing.profile_accuracies) != profiles:
            raise WrongContentError(
                f"`gates` has {profiles} profiles and {len(routing.profile_accuracies)} accuracies"
            )


def profile_prefix(index: int) -> str:
    """Return what the names of a profile's layers and tensors begin with in a dynamic network."""
    return f"networks.{index}."


def entries_under(entries: Mapping[str, Entry], prefix: str) -> dict[str, Entry]:
    """Return the entries whose names begin with a prefix, named without it."""
    found = {}
    for name, entry in entries.items():
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = entry
    return found
