"""For every format the commands that read it, and an endless stream of damaged files for them."""

import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forge
import numpy as np
import onnx
import torch
import yaml
from bases import NETWORK, STATE, TRAINING
from byte_damage import byte_damages, zip_damages
from graph_damage import damage_graph
from json_damage import damages
from network_damage import damaged_graph
from PIL import Image
from sandbox import OUTPUT, Job

from fertool.artifact.onnx_digest import DIGEST_KEY, append_digest

SHORT = ("--epochs", "1")

MODEL_COMMANDS = (
    ("show", "m.pt"),
    ("show", "m.pt", "--json"),
    ("report", "m.pt", "-o", "{output}.html"),
    ("eval", "m.pt", "--data", "{shared}/tiny.csv"),
    ("eval", "m.pt", "--data", "{shared}/tiny.csv", "--json"),
    ("export", "m.pt", "-o", "{output}", "--format", "onnx", "--no-simplify"),
    ("prune", "m.pt", "--dry-run", "--target-flops", "0.8", "--round-to", "1"),
    (
        "hessian-sensitivity",
        "m.pt",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        "--trace-images",
        "8",
    ),
    (
        "quantize",
        "m.pt",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        "--calibration-images",
        "4",
        "--no-bench",
    ),
    (
        "train-teacher",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        *NETWORK,
        "--epochs",
        "1",
        "--init",
        "m.pt",
    ),
    ("distill", "m.pt", "-o", "{output}", "--data", "{shared}/tiny.csv", *NETWORK, "--epochs", "1"),
    (
        "distill",
        "{shared}/float.pt",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        *NETWORK,
        "--init",
        "m.pt",
        *SHORT,
    ),
)
ONNX_COMMANDS = (
    ("show", "m.onnx"),
    ("show", "m.onnx", "--json"),
    ("report", "m.onnx", "-o", "{output}.html"),
    ("eval", "m.onnx", "--data", "{shared}/tiny.csv"),
    ("bench", "m.onnx", "--runs", "2", "--warmup", "0", "--starts", "0", "-o", "{output}"),
)
DATA_COMMANDS = (("data", "info"), ("data", "info", "--json"))

Draw = random.Random
Jobs = Iterator[Job]


def model_headers(shared: Path, draw: Draw) -> Jobs:
    """Model files whose header is damaged under a valid digest."""
    files = [shared / f"{name}.pt" for name in ("float", "int8", "mixed", "dynamic")]
    contents = [forge.read(file.read_bytes()) for file in files]
    streams = [damages(header, draw) for header, _ in contents]
    while True:
        number = draw.randrange(len(files))
        what, text = next(streams[number])
        content = forge.write(text, contents[number][1])
        yield Job(
            f"header of {files[number].name}, {what}",
            draw.choice(MODEL_COMMANDS),
            {"m.pt": content},
        )


def model_graphs(shared: Path, draw: Draw) -> Jobs:
    """Model files, now and then ONNX files, whose graph is damaged under a valid digest.

    Errors have to be quick.
    """
    files = [shared / f"{name}.pt" for name in ("float", "int8", "mixed", "dynamic")]
    contents = [forge.read(file.read_bytes()) for file in files]
    exported = onnx.load(shared / "float.onnx")
    onnx_header = json.loads(_entry(exported, "fertool").value)
    while True:
        if draw.random() < 0.1:
            what, text = damaged_graph(forge.graph_of(onnx_header), draw)
            changed = onnx.ModelProto()
            changed.CopyFrom(exported)
            _entry(changed, "fertool").value = json.dumps(forge.with_graph(onnx_header, text))
            command, content = draw.choice(ONNX_COMMANDS), {"m.onnx": _signed(changed, draw)}
            yield Job(f"graph in float.onnx, {what}", command, content, quick=True)
            continue
        number = draw.randrange(len(files))
        header, tensors = contents[number]
        what, text = damaged_graph(forge.graph_of(header), draw)
        damaged = forge.with_graph(header, text)
        if header["gates"] and draw.random() < 0.5:
            profiles = [damaged["graph"], *header["gates"]["profiles"][1:]]
            damaged = {**header, "gates": {**header["gates"], "profiles": profiles}}
        content = {"m.pt": forge.write(json.dumps(damaged), tensors)}
        yield Job(
            f"graph of {files[number].name}, {what}",
            draw.choice(MODEL_COMMANDS),
            content,
            quick=True,
        )


def model_tensors(shared: Path, draw: Draw) -> Jobs:
    """Model files whose tensors are damaged under a valid digest."""
    files = [shared / f"{name}.pt" for name in ("float", "int8", "mixed", "dynamic")]
    contents = [forge.read(file.read_bytes()) for file in files]
    while True:
        number = draw.randrange(len(files))
        header, tensors = contents[number]
        what, changed = damaged_tensors(tensors, draw)
        content = forge.write(json.dumps(header), changed)
        yield Job(
            f"tensors of {files[number].name}, {what}",
            draw.choice(MODEL_COMMANDS),
            {"m.pt": content},
        )


def damaged_tensors(
    tensors: dict[str, torch.Tensor], draw: Draw
) -> tuple[str, dict[str, torch.Tensor]]:
    """Return what was done, and the tensors with one of them damaged."""
    name = draw.choice(list(tensors))
    tensor = tensors[name]
    floats = tensor.is_floating_point()
    one = tensor.reshape(-1)[:1].clone()
    forms: dict[str, Callable[[], Any]] = {
        "missing": lambda: None,
        "of another type": lambda: tensor.to(torch.float64 if floats else torch.float32),
        "as integers": lambda: tensor.to(torch.int32),
        "complex": lambda: tensor.to(torch.complex64),
        "boolean": lambda: tensor.to(torch.bool),
        "flat": lambda: tensor.reshape(-1),
        "of one more axis": lambda: tensor[None],
        "shorter": lambda: tensor.reshape(-1)[:-1].clone(),
        "empty": lambda: tensor.reshape(-1)[:0].clone(),
        "expanded to 2e9": lambda: one.expand(2_000_000_000),
        "expanded to 2 ** 62": lambda: one.expand(2**31, 2**31),
        "sparse": lambda: tensor.to_sparse(),
        "NaN": lambda: (
            torch.full_like(tensor, float("nan")) if floats else tensor.clone().fill_(-1)
        ),
        "infinite": lambda: (
            torch.full_like(tensor, float("inf")) if floats else tensor.clone().fill_(1)
        ),
        "negative": lambda: -tensor.float().abs() - 1,
        "a number": lambda: 1,
        "a text": lambda: "x",
        "a list": lambda: [1, 2],
        "transposed": lambda: tensor.T if tensor.dim() == 2 else tensor.clone(),
    }
    how = draw.choice([*forms, "another name", "one more"])
    if how == "another name":
        return f"{name} under another name", {
            (k + "x" if k == name else k): v for k, v in tensors.items()
        }
    if how == "one more":
        return "one more tensor", {**tensors, "x.\u001b[31m": one}
    changed = forms[how]()
    return f"{name} {how}", {
        k: (changed if k == name else v)
        for k, v in tensors.items()
        if k != name or how != "missing"
    }


def model_bytes(shared: Path, draw: Draw) -> Jobs:
    """Model files whose bytes or zip members are damaged."""
    contents = {
        name: (shared / name).read_bytes() for name in ("float.pt", "mixed.pt", "teacher.logits")
    }
    streams = {
        name: (byte_damages(content, draw), zip_damages(content, draw))
        for name, content in contents.items()
    }
    while True:
        name = draw.choice(list(contents))
        what, content = next(draw.choice(streams[name]))
        yield Job(f"{name}, {what}", draw.choice(MODEL_COMMANDS), {"m.pt": content})


def logits(shared: Path, draw: Draw) -> Jobs:
    """Logits files with damaged headers and tensors."""
    header, tensors = forge.read((shared / "teacher.logits").read_bytes())
    stream = damages(header, draw)
    train = (
        "distill",
        "m.logits",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        *NETWORK,
        "--epochs",
        "1",
    )
    commands = (train, ("show", "m.logits"), ("show", "m.logits", "--json"))
    while True:
        if draw.random() < 0.7:
            what, text = next(stream)
            content = forge.write(text, tensors)
        else:
            what, changed = damaged_tensors(tensors, draw)
            content = forge.write(json.dumps(header), changed)
        yield Job(f"logits, {what}", draw.choice(commands), {"m.logits": content})


def states(shared: Path, draw: Draw) -> Jobs:
    """States of killed trainings: headers, tensors and bytes."""
    whole = (shared / STATE).read_bytes()
    header, tensors = forge.read(whole)
    stream, raw = damages(header, draw), byte_damages(whole, draw)
    words = tuple(word.replace("tiny.csv", "{shared}/tiny.csv") for word in TRAINING)
    while True:
        kind = draw.random()
        if kind < 0.5:
            what, text = next(stream)
            content = forge.write(text, tensors)
        elif kind < 0.8:
            what, changed = damaged_tensors(tensors, draw)
            content = forge.write(json.dumps(header), changed)
        else:
            what, content = next(raw)
        yield Job(f"state, {what}", (*words, "-o", "{output}"), {f"{OUTPUT}.pt.resume": content})


def onnx_headers(shared: Path, draw: Draw) -> Jobs:
    """ONNX files whose metadata is damaged."""
    models = {
        name: onnx.load(shared / name) for name in ("float.onnx", "mixed.onnx", "dynamic.onnx")
    }
    headers = {name: json.loads(_entry(model, "fertool").value) for name, model in models.items()}
    streams = {name: damages(header, draw) for name, header in headers.items()}
    while True:
        name = draw.choice(list(models))
        what, text = next(streams[name])
        changed = onnx.ModelProto()
        changed.CopyFrom(models[name])
        _entry(changed, "fertool").value = text.encode("utf-8", "surrogatepass").decode(
            "utf-8", "replace"
        )
        content = _signed(changed, draw)
        yield Job(f"header of {name}, {what}", draw.choice(ONNX_COMMANDS), {"m.onnx": content})


def onnx_graphs(shared: Path, draw: Draw) -> Jobs:
    """ONNX files with damaged graphs, with fertool's header and as strangers."""
    models = [onnx.load(shared / name) for name in ("float.onnx", "mixed.onnx", "dynamic.onnx")]
    names = "angry,disgust,fear,happy,sad,surprise,neutral"
    stranger = (
        "eval",
        "m.onnx",
        "--data",
        "{shared}/tiny.csv",
        "--classes",
        names,
        "--input-size",
        "48",
    )
    while True:
        changed = onnx.ModelProto()
        changed.CopyFrom(draw.choice(models))
        what = damage_graph(changed, draw)
        commands: tuple[tuple[str, ...], ...] = ONNX_COMMANDS
        if draw.random() < 0.5:
            del changed.metadata_props[:]
            commands = (stranger,)
        yield Job(f"graph, {what}", draw.choice(commands), {"m.onnx": _signed(changed, draw)})


def onnx_bytes(shared: Path, draw: Draw) -> Jobs:
    """ONNX files whose bytes are damaged."""
    contents = [(shared / name).read_bytes() for name in ("float.onnx", "mixed.onnx")]
    streams = [byte_damages(content, draw) for content in contents]
    while True:
        what, content = next(draw.choice(streams))
        yield Job(f"onnx, {what}", draw.choice(ONNX_COMMANDS), {"m.onnx": content})


def results(shared: Path, draw: Draw) -> Jobs:
    """Results of commands, as `report` reads them."""
    names = (
        "bench.json",
        "eval.json",
        "float.pt.history.json",
        "swept.pt.grid.json",
        "sensitivity.json",
    )
    documents = {name: json.loads((shared / name).read_text()) for name in names}
    streams = {name: damages(document, draw) for name, document in documents.items()}
    while True:
        name = draw.choice(names)
        what, text = next(streams[name])
        suffix = draw.choice([".html", ".md"])
        command = ("report", "r.json", "-o", "{output}")
        yield Job(
            f"{name}, {what}", command, {"r.json": text.encode("utf-8", "surrogatepass")}, suffix
        )


def measurements(shared: Path, draw: Draw) -> Jobs:
    """What a board measured, and an earlier benchmark, as `bench` reads them."""
    quick = ("--runs", "6", "--warmup", "0", "--starts", "0")
    commands = {
        "result.json": (
            ("bench", "--import", "r.json"),
            ("bench", "--import", "r.json", "--json"),
            ("bench", "--import", "r.json", "-o", "{output}"),
        ),
        "bench.json": (("bench", "{shared}/float.onnx", "--against", "r.json", *quick),),
    }
    documents = {name: json.loads((shared / name).read_text()) for name in commands}
    streams = {name: damages(document, draw) for name, document in documents.items()}
    while True:
        name = draw.choice(["result.json", "result.json", "bench.json"])
        what, text = next(streams[name])
        files = {"r.json": text.encode("utf-8", "surrogatepass")}
        codes = frozenset({0, 1, 2, 3}) if name == "bench.json" else frozenset({0, 1, 2})
        yield Job(f"{name}, {what}", draw.choice(commands[name]), files, codes=codes)


def sensitivities(shared: Path, draw: Draw) -> Jobs:
    """Sensitivity files as `quantize` reads them."""
    stream = damages(json.loads((shared / "sensitivity.json").read_text()), draw)
    command = (
        "quantize",
        "{shared}/float.pt",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        "--average-bits",
        "4",
    )
    command += ("--calibration-images", "4", "--no-bench", "--sensitivity", "s.json")
    while True:
        what, text = next(stream)
        yield Job(
            f"sensitivity, {what}", command, {"s.json": text.encode("utf-8", "surrogatepass")}
        )


def sweeps(shared: Path, draw: Draw) -> Jobs:
    """The rows of an earlier sweep, as the next one reads them."""
    stream = damages(json.loads((shared / "swept.pt.grid.json").read_text()), draw)
    command = (
        "distill",
        "{shared}/teacher.logits",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        *NETWORK,
    )
    command += ("--epochs", "1", "--grid", "temperature=2,4", "--seeds", "0,1")
    while True:
        what, text = next(stream)
        files = {f"{OUTPUT}.pt.grid.json": text.encode("utf-8", "surrogatepass")}
        yield Job(f"rows of a sweep, {what}", command, files)


def recipes(shared: Path, draw: Draw) -> Jobs:
    """Recipes: wrong values for every option, and YAML that is none or too much."""
    options = (
        "lr",
        "epochs",
        "batch-size",
        "optimizer",
        "arch",
        "arch-arg",
        "flip",
        "seeds",
        "input-size",
        "data",
    )
    options += (
        "rotation",
        "erasing",
        "patience",
        "class-weights",
        "init",
        "grid",
        "seed",
        "device",
        "5",
        "~",
        "sam-rho",
    )
    values = (
        "yes",
        "no",
        "~",
        "1:30",
        "0x10",
        "1e3",
        "-1",
        "1e999",
        ".nan",
        "-.inf",
        "2001-99-99",
        "2001-01-01",
    )
    values += (
        "[]",
        "{}",
        "[1, [2, [3]]]",
        "{a: {b: c}}",
        "!!bool abc",
        "!!python/object:os.system x",
        "!!binary aGk=",
    )
    values += (
        "'" + "x" * 10_000 + "'",
        "*a",
        "&a [1, *a]",
        '"\\e[31m"',
        "!!set {a, b}",
        "? a",
        "10000000000000000000",
    )
    values += (
        "!!float x",
        "!!int x",
        "!!timestamp x",
        "1_000",
        "0o17",
        "'1'",
        "on",
        "@",
        "%",
        "`",
        "\t",
        "\x00",
        "…",
    )
    whole = (
        "",
        "~",
        "5",
        "[]",
        "a",
        "{",
        "train-teacher",
        "train-teacher:",
        "train-teacher: 5",
        "train-teacher: []",
    )
    whole += (
        "---\n---\n",
        "? {a: b}\n: c",
        "[" * 5_000,
        "{a: " * 5_000,
        "- " * 5_000,
        "train-teacher: {lr: 1, lr: 2}",
    )
    whole += (
        "a: &a [x,x,x]\nb: &b [*a,*a,*a]\n" + "c: [*b,*b,*b]\n" * 10,
        "\ufeff",
        "%YAML 9.9\n---\na: b",
        "\x85\u2028",
    )
    whole += (
        "train-teacher: &a {lr: *a}",
        "train-teacher: {<<: {lr: 1}}",
        "prune: {nonsense: 1}",
        "nonsense: {lr: 1}",
    )
    command = (
        "train-teacher",
        "-o",
        "{output}",
        "--recipe",
        "r.yaml",
        "--data",
        "{shared}/tiny.csv",
        *NETWORK,
    )
    command += ("--epochs", "1")
    real = yaml.safe_dump({"train-teacher": {"lr": 0.01, "momentum": 0.9}}).encode()
    raw = byte_damages(real, draw)
    while True:
        kind = draw.random()
        if kind < 0.6:
            option, value = draw.choice(options), draw.choice(values)
            what, content = (
                f"{option}: {value[:30]}",
                f"train-teacher:\n  {option}: {value}\n".encode(),
            )
        elif kind < 0.9:
            text = draw.choice(whole)
            what, content = f"whole text {text[:30]!r}", text.encode()
        else:
            what, content = next(raw)
        yield Job(f"recipe, {what}", command, {"r.yaml": content})


FIELDS = (
    "",
    " ",
    "-1",
    "7",
    "8",
    "256",
    "1e3",
    "nan",
    "9" * 400,
    "x",
    '"',
    '""',
    '"a,b"',
    "\x00",
    "\ufeff",
    "é",
    "\u001b[31m",
)
FIELDS += (
    "..",
    "/etc/passwd",
    "../../x.png",
    "x" * 200_000,
    "1.5",
    "-",
    "+1",
    "٣",
    "0x1",
    "\r",
    "\u2028",
)


def tables(shared: Path, draw: Draw) -> Jobs:
    """fer2013.csv, FER+ votes and lists of labels with damaged lines, fields and bytes."""
    faces = (shared / "tiny.csv").read_text().splitlines()[:30]
    votes = (shared / "votes.csv").read_text().splitlines()
    rafdb = [f"train_{number:05}.jpg {number % 7 + 1}" for number in range(1, 15)]
    columns = (
        "subDirectory_filePath,face_x,face_y,face_width,face_height,"
        "facial_landmarks,expression,valence,arousal"
    )
    affectnet = [columns, *(f"{number}.png,0,0,16,16,0;0,{number % 8},0,0" for number in range(16))]
    boxes = ["path,label,split,x,y,w,h"]
    boxes += [f"{number}.png,class {number % 3},train,0,0,16,16" for number in range(16)]
    picture = _picture(0)
    pictures = {
        f"d/Image/aligned/train_{number:05}_aligned.jpg": picture for number in range(1, 15)
    }
    crops = {f"d/{number}.png": picture for number in range(16)}
    while True:
        kind = draw.randrange(5)
        if kind == 0:
            what, content = _damaged_table(faces, draw)
            files, words = {"d.csv": content}, ("--data", "d.csv")
        elif kind == 1:
            what, content = _damaged_table(votes, draw)
            files, words = {"v.csv": content}, ("--data", "{shared}/tiny.csv", "--ferplus", "v.csv")
        elif kind == 2:
            what, content = _damaged_table(rafdb, draw, " ")
            files, words = (
                {**pictures, "d/EmoLabel/list_patition_label.txt": content},
                ("--data", "d"),
            )
        elif kind == 3:
            what, content = _damaged_table(affectnet, draw)
            files, words = {**crops, "d/training.csv": content}, ("--data", "d")
        else:
            what, content = _damaged_table(boxes, draw)
            files, words = {**crops, "d/labels.csv": content}, ("--data", "d/labels.csv")
        name = ("fer2013.csv", "votes", "list of RAF-DB", "list of AffectNet", "list")[kind]
        yield Job(f"{name}, {what}", (*draw.choice(DATA_COMMANDS), *words), files)


def _damaged_table(lines: list[str], draw: Draw, separator: str = ",") -> tuple[str, bytes]:
    lines = list(lines)
    number = draw.randrange(len(lines))
    kind = draw.randrange(8)
    if kind < 3:
        fields = lines[number].split(separator)
        place = draw.randrange(len(fields))
        fields[place] = draw.choice(FIELDS)
        lines[number] = separator.join(fields)
        what = f"field {place} of line {number + 1} = {fields[place][:20]!r}"
    elif kind == 3:
        lines[number] += separator + draw.choice(FIELDS)
        what = f"line {number + 1} with a field more"
    elif kind == 4:
        lines[number] = lines[number][: draw.randrange(len(lines[number]) + 1)]
        what = f"line {number + 1} cut"
    elif kind == 5:
        del lines[number]
        what = f"line {number + 1} removed"
    elif kind == 6:
        encoding = draw.choice(["utf-16", "utf-8-sig", "utf-32", "utf-7"])
        return f"as {encoding}", "\n".join(lines).encode(encoding)
    else:
        return next(byte_damages("\n".join(lines).encode(), draw))
    return what, "\n".join(lines).encode("utf-8", "surrogatepass")


def _picture(shade: int, format: str = "png", **options: Any) -> bytes:
    pixels = np.random.default_rng(shade).integers(0, 256, (16, 16), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def pictures(shared: Path, draw: Draw) -> Jobs:
    """Folders in which one image is damaged, or is named like an image and is none."""
    expressions = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    whole = {f"d/train/{name}/{i}.png": _picture(i) for name in expressions for i in range(2)}
    formats = {
        "png": "png",
        "jpg": "jpeg",
        "bmp": "bmp",
        "gif": "gif",
        "tif": "tiff",
        "webp": "webp",
        "pgm": "ppm",
    }
    streams = {
        suffix: byte_damages(_picture(9, format), draw) for suffix, format in formats.items()
    }
    giants = {
        "pgm": b"P5 100000 100000 255\n" + bytes(100),
        "bmp": b"BM"
        + (10**9).to_bytes(4, "little")
        + bytes(8)
        + (40).to_bytes(4, "little")
        + (60_000).to_bytes(4, "little") * 2
        + (1).to_bytes(2, "little")
        + (8).to_bytes(2, "little")
        + bytes(24),
        "png": b"",
        "jpg": b"\xff\xd8\xff",
        "gif": b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(800),
    }
    while True:
        if draw.random() < 0.8:
            suffix = draw.choice(list(streams))
            what, content = next(streams[suffix])
        else:
            suffix = draw.choice(list(giants))
            what, content = "giant or empty", giants[suffix]
        files = {**whole, f"d/train/happy/x.{suffix}": content}
        yield Job(f"{suffix}, {what}", (*draw.choice(DATA_COMMANDS), "--data", "d"), files)


def checkpoints(shared: Path, draw: Draw) -> Jobs:
    """Checkpoints of other libraries for --init: wrapped, renamed, damaged."""
    _, tensors = forge.read((shared / "float.pt").read_bytes())
    command = (
        "train-teacher",
        "-o",
        "{output}",
        "--data",
        "{shared}/tiny.csv",
        *NETWORK,
        "--epochs",
        "1",
    )
    command += ("--init", "m.pth")
    prefixes = ("", "module.", "_orig_mod.", "model.", "backbone.", "nonsense.")
    while True:
        what, changed = damaged_tensors(tensors, draw)
        prefix = draw.choice(prefixes)
        named = {prefix + name: tensor for name, tensor in changed.items()}
        wrapping = draw.choice(["", "state_dict", "model", "model_state_dict", "net", "nonsense"])
        content: Any = {wrapping: named, "epoch": 1, "args": {"lr": 1}} if wrapping else named
        old = draw.random() < 0.2
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=not old)
        data = buffer.getvalue()
        if draw.random() < 0.2:
            more, data = next(byte_damages(data, draw))
            what = f"{what}, {more}"
        yield Job(f"checkpoint {wrapping}/{prefix}, {what}", command, {"m.pth": data})


def _signed(model: onnx.ModelProto, draw: Draw) -> bytes:
    """Return the bytes of a model, mostly with a digest that is right:
    else nothing but the digest would be read.
    """
    for entry in [entry for entry in model.metadata_props if entry.key == DIGEST_KEY]:
        model.metadata_props.remove(entry)
    content = model.SerializeToString()
    return append_digest(content) if draw.random() < 0.9 else content


def _entry(model: onnx.ModelProto, key: str) -> Any:
    return next(entry for entry in model.metadata_props if entry.key == key)


KINDS: dict[str, tuple[int, Callable[[Path, Draw], Jobs]]] = {
    "model headers": (360, model_headers),
    "model graphs": (300, model_graphs),
    "model tensors": (160, model_tensors),
    "model bytes": (140, model_bytes),
    "logits": (80, logits),
    "states": (90, states),
    "ONNX headers": (140, onnx_headers),
    "ONNX graphs": (140, onnx_graphs),
    "ONNX bytes": (60, onnx_bytes),
    "results": (180, results),
    "measurements": (80, measurements),
    "sensitivities": (60, sensitivities),
    "sweeps": (30, sweeps),
    "recipes": (120, recipes),
    "tables": (160, tables),
    "pictures": (80, pictures),
    "checkpoints": (100, checkpoints),
}
"""By kind: how many of 2,280 files, and what makes them."""
