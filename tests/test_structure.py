"""Rules about the code itself: import levels, size, and the weight of `--help`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fertool"
LEVELS = [
    {"errors", "reporter"},
    {"registry"},
    {"config", "strict_json", "inference"},
    {"graph"},
    {"header_json"},
    {"gate_spec"},
    {"quant_spec"},
    {"spec"},
    {"distributed"},
    {"artifact", "losses", "metrics", "device", "onnx_runtime", "precision", "grad_cam"},
    {"results", "routing_metrics"},
    {"data"},
    {"cost", "objective"},
    {"models"},
    {
        "training",
        "distillation",
        "pruning",
        "hessian",
        "quant",
        "exporting",
        "runtime",
        "importing",
        "web",
        "board",
        "faces",
    },
    {"formats"},
    {"report"},
    {"workflows"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Rooms of fertool that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "fertool"
        ):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [a.name.split(".")[1] for a in node.names if a.name.startswith("fertool.")]


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards_and_techniques_do_not_know_each_other(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in LEVEL, f"give {room} a level in this test and in docs/architecture.md"
    for other in set(imports(path)) - {room, "__version__"}:
        assert LEVEL[other] < LEVEL[room], f"{room} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_fit_in_a_head_and_only_the_top_prints(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    if room_of(path) not in {"cli", "report"}:
        assert not re.search(r"^\s*print\(", text, re.MULTILINE)


def test_no_file_names_a_registry_or_a_path_of_a_machine():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wrong = re.compile(
        r"(?<![\w.])/(?:work|home|root|tmp)/\w|pypi\.org|pythonhosted|download\.pytorch"
    )
    for name in files:
        if (
            name.endswith((".py", ".md", ".toml", ".yaml", ".txt", ".json", "Makefile", "run"))
            and name != __file__
        ):
            text = (ROOT / name).read_text()
            assert name == "tests/test_structure.py" or not wrong.search(text), name


def test_help_is_light():
    code = (
        "import sys; from fertool.cli.app import run; run(['--help']); "
        "print([m for m in HEAVY if m in sys.modules])"
    )
    code = code.replace("HEAVY", "('torch', 'onnx', 'onnxruntime', 'numpy', 'matplotlib')")
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip().endswith("[]")
