"""`--recipe`: what a file may say, and that every other file is one error that names file, line,
option and value.
"""

import json

import pytest


@pytest.fixture
def refused(fertool, tmp_path):
    """Run a training with a recipe that must be refused before any work.

    Returns what the error says.
    """

    def call(text, code=2):
        path, out = tmp_path / "r.yaml", tmp_path / "t.pt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        arguments = (
            "train-teacher",
            "--data",
            "synth:70",
            "--arch",
            "micro_expnet",
            "-o",
            out,
            "--recipe",
            path,
        )
        found, printed, err = fertool(*arguments)
        assert found == code, err
        assert printed == ""
        lines = " ".join(err.split())
        assert lines.count("error: ") == lines.count("hint: ") == 1
        assert "Traceback" not in err
        assert not out.exists()
        return lines.replace(" ", "")

    return call


def bomb():
    lines = ["train-teacher:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    return "\n".join(lines)


VALUES = [
    *(
        "yes",
        "true",
        "abc",
        "1:30",
        "2001-12-14",
        "nan",
        ".nan",
        "inf",
        ".inf",
        "[1, 2]",
        "''",
        "0x1f",
        "1e999",
    ),
    *(
        "!!bool abc",
        "!!int 1",
        "!!python/name:os.system",
        "!!binary aGk=",
        "!thing x",
        "{a: b}",
        "[[1]]",
        "~",
        "null",
        "",
    ),
    *("'\\u202e'", '"\\0"', '"\\uD800"', "9" * 400, "x" * 5000),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:20])
def test_a_value_that_is_no_number_names_line_option_and_value(refused, value):
    said = refused(f"# a comment\ntrain-teacher:\n  lr: {value}\n")
    assert "r.yaml" in said
    assert "r.yaml:3:" in said or "notvalidYAML" in said
    assert "lr" in said or "notvalidYAML" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train-teacher: {epochs: 3.5}", 'train-teacher:epochsis"3.5"'),
        ("train-teacher: {epochs: yes, lr: no}", 'lris"no"'),
        ("train-teacher: {flip: maybe}", 'flipis"maybe"'),
        ("train-teacher: {optimizer: adamz}", "'sgd','adam','adamw'"),
        ("train-teacher: {lr: 1, lr: 2}", '"lr"standstheretwice'),
        ("train-teacher: {}\ntrain-teacher: {}", '"train-teacher"standstheretwice'),
        ("train-teacher: {5: 1}", "unknownoption'5'"),
        ("train-teacher: {[1]: 1}", "isalist"),
        ("5: {lr: 1}", "unknowncommand'5'"),
        ("train-teacher:", "hasnooptions"),
        ("train-teacher: 5", "hasnooptions"),
        ("[train-teacher]", "mapscommandstotheiroptions"),
        ("", "mapscommandstotheiroptions"),
        ("a: {}\n---\nb: {}", "notvalidYAML"),
        ("train-teacher: &a\n  <<: *a", "nestedtoodeeply"),
        ("train-teacher: {<<: [1]}", "mergesmaps"),
        ("train-teacher: " + "[" * 1000, "nestedtoodeeply"),
        ("train-teacher: {lr: *gone}", "undefinedalias"),
        (bomb(), "expectedavalue"),
        (
            "train-teacher: &a\n  "
            + "\n  ".join(f"k{n}: 1" for n in range(4000))
            + "\nprune:\n  <<: *a",
            "morethan10,000",
        ),
        ("train-teacher: {lr: 1\x07}", "notvalidYAML"),
        ('train-teacher: {lr: "\\UFFFFFFFF"}', "notvalidYAML"),
    ],
    ids=lambda text: text[:30] if isinstance(text, str) else None,
)
def test_what_is_no_recipe_is_refused(refused, text, said):
    assert said in refused(text)


@pytest.mark.parametrize("text", [b"\xff\xfe{}", b"train-teacher: {lr: '\xe9'}", b"#" * 300_000])
def test_files_that_are_no_text_or_too_long_are_refused(refused, text):
    assert "r.yaml:" in refused(text, code=1)


def test_values_are_those_of_the_flags_and_sections_may_be_merged(fertool, tmp_path):
    (tmp_path / "r.yaml").write_bytes(
        b"\xef\xbb\xbftrain-teacher: &common\n  arch: micro_expnet\n  arch-arg: width_mult=0.25\n"
        b"  epochs: 1\n  lr: 2e-3\n  flip: 0.25\n  nesterov: yes\n  batch-size: '32'\n"
        b"distill:\n  <<: *common\n  lr: 1\n"
    )
    out = tmp_path / "t.pt"
    code, printed, err = fertool(
        "train-teacher", "--data", "synth:70", "--recipe", tmp_path / "r.yaml", "-o", out, "--json"
    )
    assert code == 0, err
    options = json.loads(printed)["provenance"][0]["options"]
    wanted = {"epochs": 1, "lr": 0.002, "flip": 0.25, "nesterov": True, "batch_size": 32}
    assert {key: options[key] for key in wanted} == wanted
