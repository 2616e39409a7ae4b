"""Python for a program without fertool: what labels one picture by a model file."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from fertool.artifact.contract import BATCH, HEIGHT, WIDTH, Contract
from fertool.artifact.header import format_of
from fertool.formats.format import load_format
from fertool.spec import Spec

_PICTURE = "face.jpg"
_MODES = {1: "L", 3: "RGB"}
_OF_MODELS = """
import fertool
model = fertool.load($file)
values = model.predict(pixels)[0]
"""
"""Opens a model file of fertool."""


def contract_of(path: Path, spec: Spec) -> Contract:
    """Return how a file with this header is fed, and what it gives.

    Of a model file, `.pt`, it is the contract of the method `predict`.
    """
    format = format_of(path)
    if format is not None:
        return load_format(format).contract(spec)
    return Contract(
        input_name="images",
        input_dtype="uint8",
        input_shape=(BATCH, HEIGHT, WIDTH, 3),
        layout="NHWC",
        pixel_range=(0, 255),
        color_order="RGB",
        output_name="probabilities",
        output_dtype="float32",
        output_shape=(BATCH, len(spec.classes)),
        output="probabilities",
        temperature=None,
        other_outputs=(),
        classes=spec.classes,
    )


def snippet_of(path: Path, contract: Contract) -> str | None:
    """Return a program that prints the probabilities of one picture.

    It needs numpy, Pillow and a runtime. None for a network of other channels than pictures have,
    and for a format of another package that has no example.
    """
    format = format_of(path)
    if contract.color_order not in ("gray", "RGB"):
        return None
    example = load_format(format).example if format else _OF_MODELS
    if not example:
        return None
    names = {
        # A literal escapes what a terminal would obey.
        "file": repr(str(path)),
        "input": repr(contract.input_name),
        "output": repr(contract.output_name),
    }
    statements = Template(example).substitute(names).strip().splitlines()
    imports = ["import numpy as np", "from PIL import Image"]
    run: list[str] = []
    for statement in statements:
        is_import = statement.startswith(("import ", "from "))
        (imports if is_import else run).append(statement)
    # As linters sort them: modules before what is taken out of others.
    imports.sort(key=lambda line: (line.startswith("from "), line.split()[1].lower()))
    lines = [*imports, f"image = {_read_image(contract)}", f"pixels = {_pixels(contract)}"]
    name = "values" if contract.output == "logits" else "probabilities"
    for statement in run:
        lines.append(re.sub("^values = ", f"{name} = ", statement))
    if contract.output == "logits":
        lines += _probabilities(contract)
    lines.append(f"classes = {list(contract.classes)!r}")
    lines.append("print(dict(zip(classes, probabilities.round(3).tolist())))")
    return "\n".join(lines)


def _read_image(contract: Contract) -> str:
    read = f'Image.open("{_PICTURE}").convert("{_MODES[contract.channels]}")'
    if contract.any_size:
        return read
    side = contract.input_shape[-1]
    return f"{read}.resize(({side}, {side}), Image.Resampling.BILINEAR)"


def _pixels(contract: Contract) -> str:
    """Return the expression for the input of one image."""
    array = "np.array(image)"
    if contract.input_dtype == "float32":
        array = "np.array(image, np.float32)"
    is_gray = contract.channels == 1
    if contract.layout == "NHWC":
        return f"{array}[None, :, :, None]" if is_gray else f"{array}[None]"
    batch = "" if contract.layout == "CHW" else "None, "
    if is_gray:
        return f"{array}[{batch}None]"
    planes = f"np.ascontiguousarray({array}.transpose(2, 0, 1))"
    return f"{planes}[None]" if batch else planes


def _probabilities(contract: Contract) -> list[str]:
    """Return the statements from the values of the output to probabilities."""
    scaled = "values - values.max()"
    if contract.temperature is not None:
        scaled = f"({scaled}) / {contract.temperature!r}"
    return [f"powers = np.exp({scaled})", "probabilities = powers / powers.sum()"]
