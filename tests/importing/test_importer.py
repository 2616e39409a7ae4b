"""Networks of other people as models: sources, weights, preprocessing, and what is refused."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from importing.hand_written import HandWritten, build
from torch import nn

from fertool.config.importing import ImportConfig
from fertool.config.pruning import SelectionConfig
from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError
from fertool.importing import import_network
from fertool.importing.survey import survey
from fertool.models import load_model, save_model
from fertool.pruning import Constraints, Targets, prune

SIZE = 48
IMAGE = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
PLAIN = ImportConfig(input_size=SIZE, mean=(0.0,), std=(1.0,))
PYTHON = f"{Path(__file__).parent / 'hand_written.py'}:build"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same network as a Python factory, an exported program and an ONNX file."""
    folder, module = tmp_path_factory.mktemp("sources"), build()
    free = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(
        torch.export.export(module, (IMAGE,), dynamic_shapes=free), folder / "net.pt2"
    )
    torch.onnx.export(
        *(module, (IMAGE,), folder / "net.onnx"),
        dynamo=False,
        input_names=["images"],
        dynamic_axes={"images": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    return {"python": PYTHON, "program": str(folder / "net.pt2"), "onnx": str(folder / "net.onnx")}


@pytest.mark.parametrize("kind", ["python", "program", "onnx"])
def test_imported_networks_answer_as_their_source(files, kind):
    found = import_network(files[kind], PLAIN)
    with torch.no_grad():
        torch.testing.assert_close(found.network(IMAGE), build()(IMAGE), rtol=1e-5, atol=1e-5)
    assert found.difference <= 1e-5
    assert {name for name in found.network.state_dict() if "num_batches" not in name} == {
        name for name in build().state_dict() if "num_batches" not in name
    }


def test_the_same_network_from_any_source_is_pruned_to_the_same_channels(files):
    kept = []
    for source in files.values():
        found = import_network(source, PLAIN)
        result = prune(
            found.spec, found.network, Constraints(Targets(macs=0.5)), SelectionConfig(round_to=4)
        )
        kept.append(dict(result.plan.kept))
        assert 0.4 <= result.plan.macs_ratio <= 0.5
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]["left"]) < 24 or len(kept[0]["right"]) < 40


def test_files_hold_what_was_imported(files, tmp_path):
    found = import_network(
        files["python"],
        ImportConfig(input_size=SIZE, mean=(0.485, 0.456, 0.406), std=(0.2, 0.3, 0.4)),
    )
    save_model(tmp_path / "model.pt", found.spec, found.network)
    spec, network = load_model(tmp_path / "model.pt")
    pixels = torch.randint(256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.2, 0.3, 0.4))
    )
    with torch.no_grad():
        expected = build()((pixels / 255 - mean) / std)
        torch.testing.assert_close(
            network(to_input(pixels, spec.input)), expected, rtol=1e-4, atol=1e-4
        )


def test_weights_come_from_the_usual_wrappings(tmp_path):
    torch.manual_seed(5)
    trained = HandWritten()
    wrapped = {
        "epoch": 3,
        "model": {f"module.{name}": tensor for name, tensor in trained.state_dict().items()},
    }
    torch.save({"state_dict": wrapped["model"]}, tmp_path / "weights.pth")
    found = import_network(
        PYTHON,
        ImportConfig(weights=tmp_path / "weights.pth", input_size=SIZE, mean=(0.0,), std=(1.0,)),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            found.network(IMAGE), trained.eval()(IMAGE), rtol=1e-5, atol=1e-5
        )
    whole = len(trained.state_dict())
    assert found.notes[0].startswith(f"{whole} of the network's {whole} tensors are those of ")


def test_weights_for_other_classes_leave_the_head_fresh_and_say_so(tmp_path):
    torch.save(HandWritten(1000).state_dict(), tmp_path / "weights.pth")
    options = ImportConfig(
        tmp_path / "weights.pth", ("a", "b", "c", "d"), SIZE, mean=(0.0,), std=(1.0,)
    )
    found = import_network(PYTHON, options)
    assert found.spec.classes == ("a", "b", "c", "d")
    assert any(
        note.startswith("head: ") and "keeps its initial values" in note for note in found.notes
    )


def test_weights_that_lack_a_tensor_are_refused_with_its_name(tmp_path):
    state = HandWritten().state_dict()
    del state["fuse.0.weight"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(FertoolError, match=r"fuse\.0\.weight is missing"):
        import_network(
            PYTHON,
            ImportConfig(tmp_path / "weights.pth", input_size=SIZE, mean=(0.0,), std=(1.0,)),
        )


def test_a_pickled_module_is_refused_and_never_run(tmp_path):
    torch.save(build(), tmp_path / "module.pth")
    with pytest.raises(FertoolError, match="would have to run code") as error:
        import_network(
            PYTHON, ImportConfig(tmp_path / "module.pth", input_size=SIZE, mean=(0.0,), std=(1.0,))
        )
    assert "state_dict()" in str(error.value.hint)


def test_gray_images_get_a_stem_that_sums_the_colours():
    found = import_network(
        PYTHON, ImportConfig(input_size=SIZE, input_channels=1, mean=(0.0,), std=(1.0,))
    )
    gray = IMAGE[:, :1]
    with torch.no_grad():
        expected = build()(gray.expand(-1, 3, -1, -1))
        torch.testing.assert_close(found.network(gray), expected, rtol=1e-4, atol=1e-5)
    assert found.spec.input.channels == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing", "unknown network of the zoo 'nothing'"),
        ("no source", "not a network that can be imported"),
        ("weights.pth", "weights alone"),
        ("there_is_none.py:build", "there is no file"),
        (PYTHON.replace(":build", ":missing"), "it has no function 'missing'"),
        (PYTHON.replace(":build", ":no_module"), "made a str"),
        (PYTHON.replace(":build", ":failing"), "the weights are elsewhere"),
        ("there_is_none.onnx", "there_is_none.onnx"),
        ("there_is_none.pt2", "there_is_none.pt2"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(source, says):
    with pytest.raises(FertoolError, match=says) as error:
        import_network(source, PLAIN)
    assert "\n" not in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (ImportConfig(mean=(0.0,), std=(1.0,)), "``input_size``"),
        (ImportConfig(input_size=SIZE), "``mean`` and ``std``"),
        (
            ImportConfig(
                input_size=SIZE,
                classes=("a", "b", "c", "d", "e"),
                mean=(0.0,),
                std=(1.0,),
                arch_args={},
            ),
            None,
        ),
    ],
)
def test_what_a_source_does_not_say_has_to_be_said(options, says):
    if says is None:
        # The factory takes num_classes, so that five names make five outputs.
        assert import_network(PYTHON, options).spec.classes == options.classes
        return
    with pytest.raises(UsageError, match=says):
        import_network(PYTHON, options)


def test_programs_with_pickled_parts_are_not_read(tmp_path, files):
    import json
    import zipfile

    with (
        zipfile.ZipFile(files["program"]) as given,
        zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil,
    ):
        for name in given.namelist():
            content = given.read(name)
            if name.endswith("weights_config.json"):
                config = json.loads(content)
                next(iter(config["config"].values()))["use_pickle"] = True
                content = json.dumps(config).encode()
            evil.writestr(name, content)
    with pytest.raises(FertoolError, match="nothing that runs code is read"):
        import_network(str(tmp_path / "evil.pt2"), PLAIN)


def test_a_function_that_the_table_lacks_is_named_with_its_place(tmp_path):
    (tmp_path / "odd.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), Cum())\n"
        "        self.fc = nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.body(x).mean((2, 3)))\n"
        "class Cum(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.cumsum(x, 1)\n"
        "def build():\n"
        "    return Odd()\n"
    )
    with pytest.raises(
        FertoolError, match=r"at 'body\.1': the function 'cumsum' is not in the operator table"
    ):
        import_network(f"{tmp_path / 'odd.py'}:build", PLAIN)


def test_a_network_whose_forward_the_capture_does_not_see_is_not_written(tmp_path):
    (tmp_path / "hidden.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Hidden(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        y = self.conv(x).mean((2, 3))\n"
        "        with torch._C.DisableTorchFunction():\n"
        "            y = y.clone().mul_(2)\n"
        "        return self.fc(y)\n"
        "def build():\n"
        "    return Hidden()\n"
    )
    with pytest.raises(FertoolError):
        import_network(f"{tmp_path / 'hidden.py'}:build", PLAIN)


def test_the_survey_says_what_can_be_pruned_and_why_the_rest_stays():
    found = import_network(PYTHON, PLAIN)
    surveyed = survey(found.network, found.spec.input)
    layers = {layer.name: layer for layer in surveyed.layers}
    assert layers["head"].stays_because == "outputs of the network"
    assert not layers["head"].prunable
    assert all(layer.prunable for name, layer in layers.items() if name != "head")
    assert surveyed.summary.startswith(f"{len(layers) - 1} of {len(layers)} layers can be pruned")


def test_unsafe_pickles_beside_programs_are_not_touched(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    buffer = io.BytesIO()
    pickle.dump(Bomb(), buffer)
    (tmp_path / "bomb.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(FertoolError):
        import_network(str(tmp_path / "bomb.pt2"), PLAIN)
    assert not (tmp_path / "touched").exists()


def test_the_zoo_is_a_source_too():
    found = import_network("nano_resnet")
    assert found.spec.input.channels == 1
    assert len(found.spec.classes) == 7
    assert isinstance(found.network, nn.Module)
