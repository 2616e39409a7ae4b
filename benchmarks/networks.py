"""How many common networks can be imported, pruned to half their MACs, quantized and exported, and
what comes of each.

    python benchmarks/networks.py -o docs/results/networks.json  # all of the list
    python benchmarks/networks.py -o networks.json timm:dla34 torchvision:resnet18

Networks begin with random weights (no download) and are trained on drawn faces until 97 % of others
are right, or for SECONDS of processor time; then the last linear layer is solved for, by least
squares, so that a large network that these seconds are too few for gives answers worth comparing.
Each row says, or gives the one reason why not:

    import     largest difference of a logit from the library's own module
    prune      MACs left where half was asked, and how far removal is from masking (relative,
               before any repair)
    quantize   images with the same top class as floats (INT8, each weight rounded by itself,
               128 calibration images)
    export     ONNX Runtime against the network, float and INT8, and the speed of all
               against the unpruned floats

Needs torchvision and timm (`pip install torchvision timm`). Rows that the output has already are
kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from settling import CLASSES, calibrate_norms_
from torch import Tensor, nn
from torch.nn import functional

from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.config.importing import ImportConfig
from fertool.config.pruning import SelectionConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data import DataOptions, FaceDataset, open_data
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.exporting import check_parity, export_model, open_onnx
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.network import Network
from fertool.importing import ImportedNetwork, import_network
from fertool.pruning import Constraints, Targets, plan_step
from fertool.quant import quantize_model
from fertool.runtime import BenchConfig, bench
from fertool.spec import Spec

IMAGES = 128
"""For calibration, and as many others for agreement."""
TARGET, ROUND_TO = 0.5, 8
BATCH, STEPS, RATE, ENOUGH = 16, 20, 1e-3, 0.97
SECONDS = 45.0
"""The most that the training of a network takes, of processor time."""
RIDGE = 0.1
"""Weight of the squared coefficients of the last layer,
as a part of the mean square of its inputs.
"""

NETWORKS = {
    "torchvision": (
        *(
            "resnet18",
            "resnet50",
            "resnext50_32x4d",
            "regnet_x_400mf",
            "regnet_y_400mf",
            "densenet121",
            "vgg11_bn",
        ),
        *(
            "squeezenet1_1",
            "googlenet",
            "mnasnet0_5",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "mobilenet_v3_large",
        ),
        *(
            "shufflenet_v2_x0_5",
            "shufflenet_v2_x1_0",
            "efficientnet_b0",
            "efficientnet_v2_s",
            "convnext_tiny",
        ),
        *("inception_v3:96", "wide_resnet50_2", "vit_b_32:224", "swin_t"),
    ),
    "timm": (
        *(
            "resnet10t",
            "resnet18d",
            "resnet26",
            "seresnet18",
            "ecaresnet26t",
            "skresnet18",
            "resnest14d",
        ),
        *(
            "resnetv2_18",
            "regnetx_002",
            "regnety_002",
            "regnetz_005",
            "mobilenetv1_100",
            "mobilenetv2_035",
        ),
        *(
            "mobilenetv3_small_050",
            "mobilenetv4_conv_small_035",
            "efficientnet_lite0",
            "tf_efficientnetv2_b0",
        ),
        *(
            "efficientnet_es",
            "mnasnet_small",
            "semnasnet_075",
            "mixnet_s",
            "ghostnet_050",
            "ghostnetv2_100",
        ),
        *(
            "repghostnet_050",
            "repvgg_a0",
            "repvit_m0_9",
            "mobileone_s0",
            "lcnet_050",
            "tinynet_e",
            "hardcorenas_a",
        ),
        *(
            "fbnetc_100",
            "fbnetv3_b",
            "spnasnet_100",
            "rexnet_100",
            "starnet_s050",
            "dla34",
            "dla46x_c",
        ),
        *(
            "res2net50_14w_8s",
            "selecsls42b",
            "ese_vovnet19b_slim",
            "darknet17",
            "cspresnet50",
            "hrnet_w18_small",
        ),
        *(
            "xception41",
            "inception_next_atto",
            "convnext_atto",
            "convnextv2_atto",
            "edgenext_xx_small",
        ),
        *(
            "fastvit_t8",
            "mobilevit_xxs",
            "mobilevitv2_050",
            "mobilenetv4_hybrid_medium_075",
            "poolformer_s12:224",
        ),
        *("efficientformer_l1:224", "mobilenetv5_base", "legacy_xception"),
    ),
}
"""By library; the side of the images behind a colon where it is not 64."""


def main() -> None:
    """Measure every network that is asked for and not in the output yet."""
    options = parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "images": IMAGES,
        "target": TARGET,
        "round_to": ROUND_TO,
        "seconds": SECONDS,
        "rows": [],
    }
    if options.output.exists():
        report = json.loads(options.output.read_text())
    known = {row["source"] for row in report["rows"]}
    for source, size in sources(options.sources):
        if source in known:
            continue
        row = {"source": source, "size": size, **measure(source, size)}
        report["rows"].append(row)
        print(line(row), flush=True)
        write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", help="library:NAME, instead of the whole list")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def sources(asked: list[str]) -> list[tuple[str, int]]:
    """Return the networks to measure, with the side of their images."""
    listed = [f"{library}:{name}" for library, names in NETWORKS.items() for name in names]
    split = [text.split(":") for text in asked or listed]
    return [(f"{library}:{name}", int(rest[0]) if rest else 64) for library, name, *rest in split]


def measure(source: str, size: int) -> dict[str, Any]:
    """Return what a network's row says; where a step fails, its reason in place of its figures."""
    row: dict[str, Any] = {}
    begun = time.perf_counter()
    found = step(row, "import", lambda: imported(source, size))
    if found is None:
        return row
    spec, network = found.spec, found.network
    row["import"] = {
        "max_abs_diff": found.difference,
        "seconds": round(time.perf_counter() - begun, 2),
    }
    row |= {"params": spec.params or count(network), "nodes": len(network.graph.nodes)}
    data = open_data(f"synth:{10 * IMAGES}", DataOptions(size=size, channels=3))
    train, val = data.split("train"), data.split("val")
    fit(row, network, spec, train, val)
    pruned = step(row, "prune", lambda: prune(row, spec, network, val))
    integer = step(row, "quantize", lambda: quantize(row, spec, network, train, val))
    step(row, "export", lambda: export(row, spec, network, pruned, integer, val))
    return row


def step(row: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    """Return what the work makes; where it fails, None, and the reason is in the row."""
    try:
        return work()
    except FertoolError as error:
        row[name] = {"failed": error.message}
    except Exception as error:  # a benchmark reports whatever goes wrong, and goes on
        row[name] = {"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}
    return None


def imported(source: str, size: int) -> ImportedNetwork:
    """Import a network with seeded random weights."""
    torch.manual_seed(0)
    return import_network(source, ImportConfig(classes=CLASSES, input_size=size, input_channels=3))


def count(network: Network) -> int:
    """Return the learned values of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def fit(
    row: dict[str, Any], network: Network, spec: Spec, train: FaceDataset, val: FaceDataset
) -> None:
    """Train until most images of the other split are right, or the time is over.

    The row says what was reached.
    """
    begun, steps, accuracy = time.process_time(), 0, 0.0
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    order = torch.Generator().manual_seed(0)
    targets = train.targets()
    while accuracy < ENOUGH and time.process_time() - begun < SECONDS:
        network.train()
        for _ in range(STEPS):
            chosen = torch.randint(len(train), (BATCH,), generator=order)
            logits = network(to_input(train.images[chosen], spec.input))
            loss = functional.cross_entropy(logits, targets[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        network.eval()
        steps += STEPS
        accuracy = top1(network, spec, val)
    if accuracy < ENOUGH:
        calibrate_norms_(network, spec, train)
        solve_last_layer_(network, spec, train)
        accuracy = top1(network, spec, val)
    row["training"] = {
        "steps": steps,
        "top1": accuracy,
        "seconds": round(time.process_time() - begun, 1),
    }


@torch.no_grad()
def solve_last_layer_(network: nn.Module, spec: Spec, train: FaceDataset) -> None:
    """Set the last linear layer to the ridge regression of the centered classes on its inputs,
    if there is one.
    """
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not linear or linear[-1].out_features != len(CLASSES):
        return
    last = linear[-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    for batch in torch.split(train.images, 64):
        network(to_input(batch, spec.input))
    hook.remove()
    features = torch.cat(seen).flatten(1).double()
    mean = features.mean(0)
    centered = features - mean
    targets = train.targets().double() - 1 / len(CLASSES)
    gram = centered.T @ centered
    penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    # Logits of ten rather than one: what a network trained to the end has.
    weight = 10 * torch.linalg.solve(gram + penalty, centered.T @ targets).T
    last.weight.copy_(weight)
    if last.bias is not None:
        last.bias.copy_(10 * targets.mean(0) - weight @ mean)


@torch.no_grad()
def top1(network: nn.Module, spec: Spec, val: FaceDataset) -> float:
    """Return the share of the images for agreement whose class is right."""
    labels = val.targets()[:IMAGES].argmax(1)
    return float((answers(network, spec, val) == labels).float().mean())


@torch.no_grad()
def answers(network: nn.Module, spec: Spec, val: FaceDataset) -> Tensor:
    """Return the top class of each image for agreement."""
    images = to_input(val.images[:IMAGES], spec.input)
    return torch.cat([network(batch).argmax(1) for batch in torch.split(images, 64)])


def prune(row: dict[str, Any], spec: Spec, network: Network, val: FaceDataset) -> Network:
    """Prune to half the MACs by the sizes of weights,
    and compare the result with the masked network.
    """
    cut = plan_step(
        spec, network, Constraints(Targets(macs=TARGET)), SelectionConfig(round_to=ROUND_TO)
    )
    smaller = cut.apply(network)
    images = to_input(val.images[:8], spec.input)
    with torch.no_grad():
        removed, hidden = smaller(images), masked(network, cut.graph, cut.plan.kept)(images)
    error = float((removed - hidden).abs().max() / hidden.abs().max().clamp(min=1e-6))
    row["prune"] = {
        "macs_ratio": cut.plan.macs_ratio,
        "params_ratio": cut.plan.params_ratio,
        "masking_error": error,
    }
    return smaller


@torch.no_grad()
def masked(network: Network, graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]) -> Network:
    """Return a copy in which all that belongs to a removed channel is 0."""
    alive = torch.zeros(len(graph.fixed), dtype=torch.bool)
    alive[graph.fixed] = True
    for layer in graph.layers:
        if layer.kind == "dense":
            alive[layer.outputs[list(kept[layer.name])]] = True
    copied = network.with_inserted({})
    state = copied.state_dict()
    for layer in graph.layers:
        rows = ~alive[layer.outputs]
        for name in (f"{layer.name}.weight", f"{layer.name}.bias", layer.name):
            tensor = state.get(name)
            if tensor is not None and layer.kind != "channel_conv" and rows.any():
                axis = next(axis for axis, side in enumerate(tensor.shape) if side == len(rows))
                tensor.movedim(axis, 0)[rows] = 0
    return copied


def quantize(
    row: dict[str, Any], spec: Spec, network: Network, train: FaceDataset, val: FaceDataset
) -> Any:
    """Quantize to INT8 and compare the top classes with those of floats."""
    quant, integer = quantize_model(
        spec, network, train, QuantizeConfig(calibration_images=IMAGES, rounding="nearest")
    )
    same = (answers(network, spec, val) == answers(integer, spec, val)).float().mean()
    macs = {node.name for node in network.graph.nodes if node.operator.channel_effect == "mixes"}
    row["quantize"] = {"agreement": float(same), "top1": top1(integer, spec, val)}
    row["quantize"] |= {"integer_layers": len(quant.weights), "layers": len(macs)}
    return replace(spec, quant=quant), integer


def export(
    row: dict[str, Any],
    spec: Spec,
    network: Network,
    pruned: Network | None,
    integer: Any,
    val: FaceDataset,
) -> None:
    """Export float, pruned and INT8 networks, check each in ONNX Runtime,
    and time them interleaved.
    """
    found: dict[str, Any] = {}
    kinds: dict[str, Any] = {"float": (spec, network)}
    if pruned is not None:
        kinds["pruned"] = (replace(spec, graph=pruned.graph), pruned)
    if integer is not None:
        kinds["int8"] = integer
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, (own, module) in kinds.items():
            content = export_model(own, module, ExportConfig())
            parity = check_parity(open_onnx(content), module, own, val.images[:IMAGES])
            found[name] = {
                "max_abs_diff": parity.max_abs_diff,
                "top1_agreement": parity.top1_agreement,
            }
            files[name] = Path(folder) / f"{name}.onnx"
            files[name].write_bytes(content)
        times = bench(
            list(files.values()), BenchConfig(runs=40, warmup=5, threads=1, memory=False, starts=0)
        )
        for name, result in zip(files, times.results, strict=True):
            found[name] |= {"median_s": result.latency_s.median, "size_bytes": result.size_bytes}
    row["export"] = found


def line(row: dict[str, Any]) -> str:
    """Return a row in one line."""
    parts = [f"{row['source']:36}"]
    for name in ("import", "prune", "quantize", "export"):
        about = row.get(name, {"failed": "not tried"})
        if "failed" in about:
            parts.append(f"{name}: {about['failed'][:80]}")
        elif name == "import":
            parts.append(f"{about['max_abs_diff']:.0e}")
        elif name == "prune":
            parts.append(f"MACs {about['macs_ratio']:.3f} ({about['masking_error']:.0e})")
        elif name == "quantize":
            parts.append(
                f"INT8 {about['agreement']:.1%} ({about['integer_layers']}/{about['layers']})"
            )
        else:
            speeds = {kind: about["float"]["median_s"] / about[kind]["median_s"] for kind in about}
            parts.append(", ".join(f"{kind} {speed:.2f}x" for kind, speed in speeds.items()))
    return " | ".join(parts)


if __name__ == "__main__":
    main()
