"""What `show` reads in the header of a model file or of recorded logits, as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fertool.artifact.contract import Contract
from fertool.gate_spec import RoutingMetrics
from fertool.quant_spec import describe_compute
from fertool.report.text_table import Fact, TextTable
from fertool.report.units import (
    MISSING,
    accuracy_cell,
    accuracy_text,
    channels_text,
    count_text,
    p_value_text,
    percent_text,
    short_file_names,
    size_text,
)
from fertool.results import GatesSummary, LogitsSummary, ModelSummary
from fertool.spec import InputSpec, Metrics, ProvenanceStep, QuantSpec

_MODEL_HEADERS = (
    "file",
    "architecture",
    ">size",
    ">params",
    ">MACs",
    "arithmetic",
    ">accuracy\n95 % CI",
)


def layout_models(summaries: Sequence[ModelSummary], *, with_accuracy: bool = True) -> TextTable:
    """Lay out several models side by side."""
    names = short_file_names(summaries)
    rows = []
    for summary in summaries:
        cells = [
            names[str(summary.file)],
            summary.arch,
            size_text(summary.size_bytes),
            count_text(summary.params),
            count_text(summary.macs),
            quant_text(summary.quant),
        ]
        if with_accuracy:
            cells.append(_metrics_cell(summary.metrics))
        rows.append(tuple(cells))
    return TextTable(_MODEL_HEADERS[: len(rows[0])], tuple(rows))


def card_facts(summary: ModelSummary) -> list[Fact]:
    """Return what a card of a model has beside the row that `layout_models` gives it."""
    facts = []
    arguments = _options_text(summary.arch_args)
    if arguments:
        facts.append(("arguments", arguments))
    if summary.gates:
        facts += _gate_facts(summary.gates)
    facts.append(("input", _input_text(summary.input)))
    facts.append(("classes", ", ".join(summary.classes)))
    if summary.metrics:
        macro_f1 = f"{summary.metrics.macro_f1:.3f} on {summary.metrics.split}"
        facts.append(("macro F1", macro_f1))
    else:
        facts.append(("accuracy", "not measured"))
    facts.append(("digest", summary.digest or MISSING))
    return facts


def model_facts(summary: ModelSummary) -> list[Fact]:
    """Return the header of a model file, its provenance apart."""
    architecture = summary.arch
    arguments = _options_text(summary.arch_args)
    if arguments:
        architecture += f" ({arguments})"
    facts = [
        ("architecture", architecture),
        ("size", size_text(summary.size_bytes)),
        ("parameters", count_text(summary.params)),
    ]

    macs = f"{count_text(summary.macs)} per image"
    gates = summary.gates
    if gates:
        facts.append(("MACs", f"{macs}, on average"))
        facts += _gate_facts(gates)
    else:
        facts.append(("MACs", macs))

    facts.append(("input", _input_text(summary.input)))
    facts.append(("classes", ", ".join(summary.classes)))
    facts.append(("arithmetic", quant_text(summary.quant)))
    facts.append(("accuracy", _metrics_text(summary.metrics)))
    facts.append(("digest", summary.digest or MISSING))
    return facts


def contract_facts(contract: Contract) -> list[Fact]:
    """Return how a file is fed, and what it gives."""
    low, high = contract.pixel_range
    channels = f"{contract.color_order}, pixels from {low} to {high}"
    sizes = "any height and width" if contract.any_size else "no other size"
    output = f"{contract.output} for each class, in the order above"
    if contract.output == "logits":
        divisor = "" if contract.temperature is None else f" of logits / {contract.temperature:g}"
        output = f"logits for each class, in the order above; probabilities: softmax{divisor}"
    given = _tensor_text(contract.input_name, contract.input_dtype, contract.input_shape)
    result = _tensor_text(contract.output_name, contract.output_dtype, contract.output_shape)
    facts = [
        ("input", given),
        ("", f"{contract.layout}, {channels}, {sizes}"),
        ("output", result),
        ("", output),
    ]
    for name in contract.other_outputs:
        facts.append(("", f"{name}: which network computed them, int64 [batch]"))
    return facts


def _tensor_text(name: str, dtype: str, shape: Sequence[int | str]) -> str:
    return f"{name}, {dtype} [{', '.join(map(str, shape))}]"


def _metrics_cell(metrics: Metrics | None) -> str:
    if metrics is None:
        return MISSING
    return accuracy_cell(metrics, metrics.split)


def _metrics_text(metrics: Metrics | None) -> str:
    if not metrics:
        return "not measured"
    return f"{accuracy_text(metrics, metrics.split)}, macro F1 {metrics.macro_f1:.3f}"


def _gate_facts(gates: GatesSummary) -> list[Fact]:
    """Return how many widths there are, what chooses among them, and what that is worth."""
    fractions = []
    for fraction in gates.shares:
        fractions.append(percent_text(fraction))
    shown = ", ".join(fractions)
    widths = f"{len(gates.profiles)} widths, the widest first, for {shown} of the images"
    facts = [("profiles", widths)]
    if gates.thresholds is not None:
        margins = _numbers_text(gates.thresholds)
        facts.append(("cascade", f"the next wider one below a margin of {margins}"))
    if gates.routing is not None:
        facts.append(("against random", routing_text(gates.routing)))
    return facts


def routing_text(routing: RoutingMetrics) -> str:
    """Return an accuracy beside that of the same shares of the images at random."""
    low, high = routing.difference_ci95
    fitted = ", thresholds from the other half" if routing.cross_fitted else ""
    return (
        f"{100 * routing.accuracy:.2f} % for {100 * routing.random_accuracy:.2f} % with the same "
        f"shares at random: {100 * routing.difference:+.2f} points, {100 * low:+.2f} to "
        f"{100 * high:+.2f}, p {p_value_text(routing.paired_p)}, "
        f"n = {routing.n:,}{fitted}; single profiles at random with the same MACs "
        f"{100 * routing.same_macs_accuracy:.2f} %"
    )


def _input_text(shape: InputSpec) -> str:
    pixels = f"{shape.size} x {shape.size} {channels_text(shape.channels)}"
    mean, std = _numbers_text(shape.mean), _numbers_text(shape.std)
    return f"{pixels}, (pixel / 255 - mean) / std with mean {mean}, std {std}"


def _numbers_text(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def logits_facts(summary: LogitsSummary) -> list[Fact]:
    """Return the header of a file of recorded logits, its provenance apart."""
    images = summary.images
    pixels = f"{images.size} x {images.size} {channels_text(images.channels)}"
    teachers = []
    for digest in summary.teachers:
        # Its first digits tell two files apart.
        teachers.append(f"teacher {digest[:12]}")
    return [
        ("size", size_text(summary.size_bytes)),
        ("logits of", ", ".join(teachers)),
        ("images", f"{images.count:,} of {pixels}"),
        ("images digest", images.digest),
        ("views", _views_text(summary)),
        ("classes", ", ".join(summary.classes)),
        ("digest", summary.digest or MISSING),
    ]


def _views_text(summary: LogitsSummary) -> str:
    """Return how many augmented views of each image were recorded, and their augmentation."""
    if not summary.views:
        return "the images as they are"
    scalars = {}
    for name, value in summary.augmentation.items():
        # Ranges would take a line each; seed and scalars tell two recordings apart.
        if not isinstance(value, list | tuple):
            scalars[name] = value
    return f"{summary.views}, seed {summary.seed}: {_options_text(scalars)}"


def layout_history(provenance: Sequence[ProvenanceStep]) -> TextTable:
    """Lay out the steps that made a model: options, seed and the digests of what each read."""
    rows = []
    for number, step in enumerate(provenance, start=1):
        rows.append((str(number), step.command, _step_text(step)))
    return TextTable(("step", "command", "options and inputs"), tuple(rows))


def _step_text(step: ProvenanceStep) -> str:
    options = dict(step.options)
    if step.seed is not None:
        options["seed"] = step.seed
    inputs = []
    for name, digest in step.inputs.items():
        inputs.append(f"{name} {digest[:12]}")

    parts = []
    if _options_text(options):
        parts.append(_options_text(options))
    if inputs:
        parts.append(f"read {', '.join(inputs)}")
    return "; ".join(parts)


def _options_text(options: Mapping[str, Any]) -> str:
    """Return options as `name=value`, without those that have no value."""
    # Options without a value were not given.
    return " ".join(f"{key}={value}" for key, value in options.items() if value is not None)


def quant_text(quant: QuantSpec | None) -> str:
    """Return the arithmetic of a network: float32, or the bits of its weights and activations."""
    if quant is None:
        return "float32"
    weight_bits: set[int] = set()
    for layer in quant.weights.values():
        weight_bits.update(layer.bits)
    weights = _bits_text(weight_bits)
    activations = _bits_text(set(quant.activations.values()))
    text = f"integers, weights {weights} bit, activations {activations} bit ({quant.method})"
    compute = describe_compute(quant)
    return f"{text}; {compute}" if compute else text


def _bits_text(bits: set[Any]) -> str:
    """Return numbers of bits as "4/8", and 32 for none: nothing is quantized then."""
    return "/".join(map(str, sorted(bits))) or "32"
