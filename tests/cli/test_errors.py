"""What a user can get wrong: one `error:` line, a hint, exit code 1 or 2, no traceback,
nothing damaged.
"""

import io
import json
import os
import zipfile
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from fertool import models
from fertool.artifact import store
from fertool.header_json import canonical_json
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.manual_seed(0)
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    models.save_model(path, spec, module)
    return path


@pytest.fixture
def fails(fertool):
    """Run a command line that must fail cleanly; returns its error line."""

    def call(*arguments, code):
        found, out, err = fertool(*arguments)
        lines = err.splitlines()
        assert found == code, err
        assert out == ""
        assert [line for line in lines if line.startswith("error: ")] == lines[-2:-1], err
        assert lines[-1].startswith("hint: ")
        assert "Traceback" not in err
        return lines[-2]

    return call


def rewritten(model, path, header=None, tensors=None):
    artifact = store.load(model)
    content = json.loads(artifact.spec.to_json())
    _, data = store.pack({**content, **(header or {})}, {**artifact.state_dict, **(tensors or {})})
    path.write_bytes(data)
    return path


def csv(path, *rows):
    pixels = " ".join(["7"] * 2304)
    lines = [
        f"{label},{pixels},{usage}" for usage in ("Training", "PublicTest") for label in range(7)
    ]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines, *rows]) + "\n")
    return path


class TestModelFiles:
    @pytest.mark.parametrize(
        "command", [["prune", "--target-flops", "0.5"], ["export"], ["show"], ["bench"]]
    )
    def test_missing(self, fails, tmp_path, command):
        assert "gone.pt: no such file" in fails(
            command[0], tmp_path / "gone.pt", *command[1:], code=1
        )

    def test_text_named_pt(self, fails, tmp_path):
        (tmp_path / "text.pt").write_text("hello")
        assert "text.pt: not a fertool model file" in fails("export", tmp_path / "text.pt", code=1)

    def test_truncated(self, fails, tmp_path, model):
        (tmp_path / "short.pt").write_bytes(model.read_bytes()[:-1000])
        assert "short.pt: not a fertool model file" in fails(
            "prune", tmp_path / "short.pt", "--target-flops", "0.5", code=1
        )
        assert os.listdir(tmp_path) == ["short.pt"]

    def test_one_flipped_bit(self, fails, tmp_path, model):
        content = bytearray(model.read_bytes())
        weight = store.load(model).state_dict["classifier.0.weight"].numpy().tobytes()
        content[content.index(weight) + 10] ^= 4
        (tmp_path / "bad.pt").write_bytes(content)
        assert "bad.pt: damaged" in fails("export", tmp_path / "bad.pt", code=1)

    def test_a_pickle_that_would_run_code(self, fails, tmp_path):
        class Attack:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        buffer = io.BytesIO()
        torch.save({"state_dict": {}, "spec": Attack()}, buffer)
        (tmp_path / "evil.pt").write_bytes(buffer.getvalue())
        fails("export", tmp_path / "evil.pt", code=1)
        fails(
            "train-teacher",
            "--data",
            "synth:280",
            "--init",
            tmp_path / "evil.pt",
            "-o",
            tmp_path / "o.pt",
            code=1,
        )
        assert sorted(os.listdir(tmp_path)) == ["evil.pt"]

    def test_newer_format(self, fails, tmp_path, model):
        path = rewritten(model, tmp_path / "new.pt", {"format": 99})
        assert "header format 99" in fails("show", path, code=1)
        assert "header format 99" in fails("export", path, code=1)

    def test_tensors_that_do_not_fit_are_all_listed(self, fails, tmp_path, model):
        changed = {"classifier.0.bias": torch.zeros(3), "extra": torch.zeros(2)}
        path = rewritten(model, tmp_path / "odd.pt", tensors=changed)
        line = fails("export", path, code=1)
        assert "extra is unknown" in line
        assert "classifier.0.bias is float32[3], the spec says float32[" in line

    def test_an_architecture_that_is_not_installed_is_not_needed(self, fertool, tmp_path, model):
        path = rewritten(model, tmp_path / "foreign.pt", {"arch": "somebody_elses"})
        assert fertool("export", path, "-o", tmp_path / "foreign.onnx")[0] == 0
        code, out, _ = fertool("show", tmp_path / "foreign.onnx", "--json")
        assert code == 0
        assert json.loads(out)["arch"] == "somebody_elses"

    def test_onnx_without_a_header_says_what_to_add(self, fails, fertool, tmp_path, model):
        path = tmp_path / "model.onnx"
        assert fertool("export", model, "-o", path)[0] == 0
        graph = onnx.load(path)
        del graph.metadata_props[:]
        onnx.save(graph, path)
        line = fails("eval", path, "--data", "synth:280", code=2)
        assert "without fertool's header" in line
        code, out, _ = fertool(
            *(
                "eval",
                path,
                "--data",
                "synth:280",
                "--classes",
                ",".join(CLASSES),
                "--input-size",
                48,
                "--json",
            )
        )
        assert code == 0
        assert json.loads(out)["n"] == 28
        own = ("--classes", "a,b,c,d,e,f,g", "--input-size", 48)
        code, out, err = fertool(
            "bench", path, *own, "--runs", 2, "--warmup", 0, "--starts", 1, "--json"
        )
        assert code == 0, err
        assert json.loads(out)["results"][0]["macs"] is None


class TestData:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("3,1 2 3,Training", "bad.csv:16"),
            (f"9,{' '.join(['7'] * 2304)},Training", "bad.csv:16"),
            (f"3,{' '.join(['7'] * 2303)} cat,Training", "bad.csv:16"),
            (f"happy,{' '.join(['7'] * 2304)},Training", "bad.csv:16"),
            (f"3,{' '.join(['7'] * 2303)} 256,Training", "bad.csv:16"),
        ],
    )
    def test_a_bad_row_is_named_by_its_line(self, fails, tmp_path, row, message):
        assert message in fails("data", "info", "--data", csv(tmp_path / "bad.csv", row), code=1)

    def test_an_empty_split(self, fails, tmp_path, model):
        line = fails("eval", model, "--data", csv(tmp_path / "a.csv"), "--split", "test", code=1)
        assert "test" in line

    def test_a_class_missing_in_training(self, fails, tmp_path):
        path = csv(tmp_path / "a.csv")
        path.write_text(
            "\n".join(line for line in path.read_text().splitlines() if not line.startswith("1,"))
        )
        line = fails("train-teacher", "--data", path, "-o", tmp_path / "o.pt", code=1)
        assert "disgust" in line

    def test_an_unreadable_image_is_named(self, fails, fertool, tmp_path):
        for split in ("train", "test"):
            for name in ("happy", "sad"):
                folder = tmp_path / "faces" / split / name
                folder.mkdir(parents=True)
                for index in range(12):
                    pixels = np.full((48, 48), 20 * index, np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
        (tmp_path / "faces" / "train" / "sad" / "3.png").write_bytes(b"\x89PNG not really")
        data = ("--data", tmp_path / "faces")
        assert "3.png" in fails("train-teacher", *data, "-o", tmp_path / "o.pt", code=1)
        # It is there to tell of them all.
        code, out, _ = fertool("data", "info", *data)
        assert code == 0
        assert "3.png" in out

    def test_no_such_data(self, fails, tmp_path):
        assert "gone" in fails("data", "info", "--data", tmp_path / "gone", code=1)


class TestOutputs:
    def test_equal_to_the_input(self, fails, model):
        before = model.read_bytes()
        assert "also an input" in fails(
            "prune", model, "-o", model, "--target-flops", "0.5", code=1
        )
        assert model.read_bytes() == before

    @pytest.mark.parametrize(
        "command",
        [
            ["train-teacher"],
            ["distill", "MODEL"],
            ["prune", "MODEL", "--target-flops", "0.5"],
            ["hessian-sensitivity", "MODEL"],
            ["quantize", "MODEL"],
            ["export", "MODEL", "--format", "onnx"],
            ["bench", "MODEL"],
            ["eval", "MODEL"],
        ],
        ids=lambda command: command[0],
    )
    def test_equal_to_the_data(self, fails, model, tmp_path, command):
        data = csv(tmp_path / "faces.csv")
        before = data.read_bytes()
        arguments = [model if part == "MODEL" else part for part in command]
        assert "also an input" in fails(*arguments, "--data", data, "-o", data, code=1)
        assert data.read_bytes() == before

    def test_a_dry_run_makes_no_folder(self, fertool, model, tmp_path):
        output = tmp_path / "new" / "x.pt"
        assert fertool("prune", model, "--target-flops", "0.5", "--dry-run", "-o", output)[0] == 0
        assert os.listdir(tmp_path) == []

    def test_unwritable(self, fails, model, tmp_path):
        (tmp_path / "file").write_text("")
        assert "cannot write" in fails("export", model, "-o", tmp_path / "file" / "x.onnx", code=1)

    def test_a_full_disk(self, fails, model, tmp_path, monkeypatch):
        def full(handle):
            raise OSError(28, "No space left on device")

        (tmp_path / "x.onnx").write_text("last week's")
        monkeypatch.setattr(os, "fsync", full)
        assert "No space left on device" in fails(
            "export", model, "-o", tmp_path / "x.onnx", code=1
        )
        assert (tmp_path / "x.onnx").read_text() == "last week's"
        assert os.listdir(tmp_path) == ["x.onnx"]


class TestUsage:
    @pytest.mark.parametrize("target", ["1.5", "0", "abc"])
    @pytest.mark.parametrize("flag", ["--target-flops", "--target-params"])
    def test_budgets(self, fails, model, flag, target):
        assert f"{flag} {target}" in fails("prune", model, flag, target, code=2)

    def test_no_budget(self, fails, model):
        assert "no budget" in fails("prune", model, code=2)

    def test_unknown_architecture_lists_the_choices(self, fertool, tmp_path):
        code, _, err = fertool(
            "train-teacher",
            "--data",
            "synth:280",
            "--arch",
            "mobilenet_v4",
            "-o",
            tmp_path / "o.pt",
        )
        assert code == 2
        assert "unknown architecture 'mobilenet_v4'" in err
        assert "did you mean 'mobilenet_v2'" in err

    def test_unknown_architecture_argument(self, fails, tmp_path):
        line = fails(
            *(
                "train-teacher",
                "--data",
                "synth:280",
                "--arch-arg",
                "depth=3",
                "-o",
                tmp_path / "o.pt",
            ),
            code=2,
        )
        assert "depth" in line

    def test_unknown_keys_of_a_recipe_are_all_listed(self, fails, tmp_path):
        (tmp_path / "r.yaml").write_text(
            "prune: {target-flop: '0.5', epochs: 1, speed: 9}\nprone: {}\n"
        )
        line = fails("prune", "x.pt", "--recipe", tmp_path / "r.yaml", code=2)
        for name in ("target-flop", "speed", "prone"):
            assert f"'{name}'" in line

    def test_a_recipe_that_is_no_yaml_names_the_line(self, fails, tmp_path):
        (tmp_path / "r.yaml").write_text("prune:\n  epochs: [1\n")
        assert "r.yaml:3" in fails("prune", "x.pt", "--recipe", tmp_path / "r.yaml", code=2)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["prune"],
            ["prune", "x.pt", "--epochs", "many"],
            ["flatten"],
            ["eval", "x.pt", "--split", "exam"],
        ],
        ids=" ".join,
    )
    def test_what_the_parser_refuses(self, fertool, arguments):
        code, _, err = fertool(*arguments)
        assert code == 2
        assert "Traceback" not in err


def test_flags_win_over_the_recipe(fertool, model, tmp_path):
    (tmp_path / "r.yaml").write_text("prune: {target-flops: '0.8', round-to: 1}\n")
    code, out, _ = fertool("prune", model, "--recipe", tmp_path / "r.yaml", "--dry-run", "--json")
    assert code == 0
    assert 0.72 <= json.loads(out)["macs_ratio"] <= 0.8
    _, out, _ = fertool(
        "prune",
        model,
        "--recipe",
        tmp_path / "r.yaml",
        "--target-flops",
        "0.6",
        "--dry-run",
        "--json",
    )
    assert 0.54 <= json.loads(out)["macs_ratio"] <= 0.6


def test_a_header_in_the_zip_that_differs_from_the_one_in_the_tensors_is_refused(
    fails, tmp_path, model
):
    artifact = store.load(model)
    path = tmp_path / "two.pt"
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("fertool.json"):
                content = canonical_json(
                    {**json.loads(content), "params": artifact.spec.params + 1}
                ).encode()
            target.writestr(entry, content)
    fails("export", path, code=1)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_lack_of_memory_is_one_error(fails, monkeypatch, model, tmp_path, error):
    monkeypatch.setattr("fertool.report.page.render_page", Mock(side_effect=error))
    assert "not enough memory" in fails("report", model, "-o", tmp_path / "r.html", code=1)


def test_a_header_that_says_nothing_of_the_cost_is_no_obstacle(fertool, model, tmp_path):
    free = rewritten(model, tmp_path / "free.pt", {"params": 0, "macs": 0})
    for target in (("--target-flops", "0.5"), ("--target-flops", "1M"), ("--target-params", "50k")):
        code, _, err = fertool("prune", free, *target, "-o", tmp_path / "out.pt", "--no-bench")
        assert code == 0, err
