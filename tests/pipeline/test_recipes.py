"""The recipes that come with fertool: known options all of them,
and the trainings of two of them in small.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = (
    "--data",
    "synth:140",
    "--arch-arg",
    "width_mult=0.25",
    "--input-size",
    32,
    "--epochs",
    1,
    "--device",
    "cpu",
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_option_of_a_recipe_exists(fertool, tmp_path, recipe):
    # The missing file is only found after the whole recipe has been read.
    code, _, err = fertool(
        "train-teacher",
        "--data",
        tmp_path / "none.csv",
        "--recipe",
        recipe,
        "-o",
        tmp_path / "t.pt",
    )
    assert code == 1
    assert "none.csv" in err


@pytest.mark.parametrize(
    ("name", "teacher", "student", "given"),
    [
        (
            "tsnet",
            "eff_resnet18",
            "shufflenet_v2_x1_0",
            {"temperature": 6, "alpha": 0.4, "optimizer": "sgd"},
        ),
        ("ean", "ean", "ean", {"method": "iterative", "rounds": 2}),
    ],
)
def test_a_recipe_trains_teacher_and_student(fertool, tmp_path, name, teacher, student, given):
    recipe = ("--recipe", ROOT / "recipes" / f"{name}.yaml", *SMALL, "--json")
    code, out, err = fertool("train-teacher", *recipe, "-o", tmp_path / "t.pt")
    assert code == 0, err
    assert json.loads(out)["arch"] == teacher
    rounds = ("--rounds", 2) if "rounds" in given else ()
    code, out, err = fertool(
        "distill", tmp_path / "t.pt", *recipe, *rounds, "-o", tmp_path / "s.pt"
    )
    assert code == 0, err
    printed = json.loads(out)
    options = printed["provenance"][0]["options"]
    assert printed["arch"] == student
    assert {key: options[key] for key in given} == given


def test_every_recipe_has_a_target_of_its_name():
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        name for line in re.findall(r"^([\w ]+):", makefile, re.MULTILINE) for name in line.split()
    }
    assert {path.stem for path in RECIPES} <= targets


@pytest.mark.parametrize(
    ("name", "faster", "given"),
    [
        ("ean", (), {"criterion": "l2-gamma", "reconstruct": True}),
        ("dynamic_mbv3", ("--epochs", 2), {"schedule": "dynamic"}),
        (
            "prj_hawqc",
            ("--punish-share", 0.2, "--punish-epochs", 1, "--reward-epochs", 1, "--max-drop", 100),
            {"schedule": "prj", "criterion": "taylor", "class_weights": "balanced"},
        ),
    ],
)
def test_a_recipe_prunes(fertool, tmp_path, name, faster, given):
    arch = "ean" if name == "ean" else "micro_expnet"
    small = ("--data", "synth:140", "--device", "cpu")
    made = ("--arch", arch, "--arch-arg", "width_mult=0.5", "--input-size", 32, "--epochs", 1)
    assert fertool("train-teacher", *small, *made, "-o", tmp_path / "t.pt")[0] == 0
    recipe = ("--recipe", ROOT / "recipes" / f"{name}.yaml")
    own = ("--scoring-images", 56, "--no-bench", "--json", "--epochs", 1, *faster)
    code, out, err = fertool(
        "prune", tmp_path / "t.pt", "-o", tmp_path / "p.pt", *recipe, *small, *own
    )
    assert code == 0, err
    options = json.loads(out)["provenance"][-1]["options"]
    assert {key: options[key] for key in given} == given
