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
    example = _OF_MODELS if format is None else load_format(format).example
    if not example or contract.color_order not in ("gray", "RGB"):
        return None
    names = {
        # A literal escapes what a terminal would obey.
        "file": repr(str(path)),
        "input": repr(contract.input_name),
        "output": repr(contract.output_name),
    }
    statements = Template(example).substitute(names).strip().splitlines()
    is_import = re.compile("import |from ")
    imports = ["import numpy as np", "from PIL import Image"]
    imports += filter(is_import.match, statements)
    # As linters sort them: modules before what is taken out of others.
    imports.sort(key=lambda line: (line.startswith("from "), line.split()[1].lower()))
    run = [statement for statement in statements if not is_import.match(statement)]
    lines = [
        *imports,
        f"image = {_read_image(contract)}",
        f"pixels = {_pixels(contract)}",
        *run,
        *_probabilities(contract),
        f"classes = {list(contract.classes)!r}",
        "print({name: round(float(p), 3) for name, p in zip(classes, probabilities)})",
    ]
    text = "\n".join(lines)
    if contract.output == "probabilities":
        text = text.replace("\nvalues = ", "\nprobabilities = ")
    return text


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
    # Pillow gives gray images without an axis of channels, and colors last.
    if contract.channels == 1:
        axes = {"NHWC": "None, :, :, None", "NCHW": "None, None", "CHW": "None"}
        return f"{array}[{axes[contract.layout]}]"
    if contract.layout == "NHWC":
        return f"{array}[None]"
    planes = f"np.ascontiguousarray({array}.transpose(2, 0, 1))"
    return planes if contract.layout == "CHW" else f"{planes}[None]"


def _probabilities(contract: Contract) -> list[str]:
    """Return the statements from the values of the output to probabilities."""
    if contract.output == "probabilities":
        return []
    scaled = "values - values.max()"
    if contract.temperature is not None:
        scaled = f"({scaled}) / {contract.temperature!r}"
    return [f"powers = np.exp({scaled})", "probabilities = powers / powers.sum()"]
