from __future__ import annotations

import json
import re
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from colors import contrast
from graphs import toy_graph
from onnx import helper
from report_data import (
    COMPARISONS,
    QUANT,
    bench_report,
    evaluation,
    history,
    sensitivity,
    spec,
    sweep,
)

from fertool.errors import FertoolError
from fertool.report.html_writer import STYLE_SHEET
from fertool.report.page import render_page
from fertool.report.result_files import read_result_files
from fertool.results import ClassFigures, EvaluationReport, History
from fertool.results.fields import Result
from fertool.spec import Spec

pytest.importorskip("matplotlib")


class Page(HTMLParser):
    """Text, pictures and the balance of the tags."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def render(files: list[Path], *, as_markdown: bool = False) -> str:
    return render_page(read_result_files(files), as_markdown=as_markdown)


def model_file(path: Path, header: Spec) -> Path:
    model = helper.make_model(helper.make_graph([], "empty", [], []))
    helper.set_model_props(model, {"fertool": header.to_json()})
    onnx.save(model, str(path))
    return path


def json_file(path: Path, result: Result) -> Path:
    path.write_text(json.dumps(result.as_dict()))
    return path


def test_a_page_of_everything_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    files = [
        model_file(tmp_path / "student.onnx", spec()),
        model_file(tmp_path / "int8.onnx", spec(graph=toy_graph(8, 8), quant=QUANT)),
        json_file(tmp_path / "bench.json", bench_report("student.onnx", "int8.onnx")),
        json_file(tmp_path / "eval.json", EvaluationReport((evaluation(),), COMPARISONS)),
        json_file(tmp_path / "one.json", evaluation("alone.pt")),
        json_file(
            tmp_path / "train.json", History(file="build/student.pt", history=tuple(history()))
        ),
        json_file(tmp_path / "sens.json", sensitivity()),
        json_file(
            tmp_path / "s.pt.grid.json",
            sweep({"alpha": [0.2, 0.4], "temperature": [4.0, 6.0]}, (0, 1)),
        ),
    ]
    content = render(files)
    page = Page(content)
    assert page.open == []
    # Size and latency against accuracy, curves, a grid, widths, bits, traces.
    pictures = [source for source in page.sources if not source.startswith("#section-")]
    assert len(pictures) == 7
    assert all(source.startswith("data:image/svg+xml;base64,") for source in pictures)
    assert "script" not in page.tags
    for expected in (
        "Article 5(1)(f)",
        "64.2 %62.6-65.7val, n = 3,589",
        "integers, weights 4/8 bit",
        "Model card: student.onnx",
        "intended use",
        "Several trainings: s.pt",
        "64.00 ± 0.40 %",
        "excluded uses",
        "(pixel / 255 - mean) / std",
        "epochs=2 seed=0; read data abababababab",
        "2.00 x",
        "without copies of training images",
        "Confusion matrix of student.pt: true class by row",
        "< 0.001",
        "32 images, 10 probes",
        "student.onnx (before) and int8.onnx (after)",
    ):
        assert expected in page.text
    assert render(files) == content
    assert str(tmp_path) not in content


def test_everything_from_files_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\"<img src=x onerror=y>"
    header = spec(classes=(evil, "b", "c"), arch=evil, arch_args={evil: evil})
    per_class = {evil: ClassFigures(0.5, 0.5, 0.5, 1)}
    entry = replace(evaluation(evil), per_class=per_class, confusion=((1,),))
    page = Page(
        render([model_file(tmp_path / "m<b>.onnx", header), json_file(tmp_path / "e.json", entry)])
    )
    assert "script" not in page.tags
    assert not any(source == "x" for source in page.sources)
    assert page.text.count(evil) >= 4
    assert "m<b>.onnx" in page.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "f.json: not JSON"),
        ("[1, 2]", "f.json: not a result of a fertool command"),
        ('{"a": 1}', "f.json: not a result of a fertool command"),
        ('{"results": [1]}', "f.json: not a result of a fertool command"),
        ('{"confusion": []}', "f.json: keys are missing: accuracy, accuracy_ci95"),
        ('{"results": [{"latency_s": {}}]}', "f.json: keys are missing: batch, file"),
        ('{"layers": [{"name": "a"}]}', "f.json: keys are missing: method, model_digest, probes"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "f.json"
    path.write_text(content)
    with pytest.raises(FertoolError, match=message):
        render([path])


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    for name in ("gone.pt", "gone.json"):
        with pytest.raises(FertoolError, match="no such file"):
            render([tmp_path / name])


def test_a_card_in_markdown_has_every_figure_and_needs_no_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = [
        model_file(tmp_path / "a|b_[x].onnx", spec()),
        json_file(tmp_path / "eval.json", EvaluationReport((evaluation(),), COMPARISONS)),
    ]
    card = render(files, as_markdown=True)
    assert card.startswith("# Facial-expression models\n")
    assert "## Model card: a\\|b\\_\\[x\\].onnx" in card
    assert "Article 5(1)(f)" in card
    # Every table is whole: as many cells in each row as in its head.
    for block in card.split("\n\n"):
        if block.startswith("|"):
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(cells) == 1, block
    assert "<td" not in card


def test_no_picture_stands_twice_on_a_page(tmp_path: Path) -> None:
    narrow = toy_graph(8, 8)
    files = [
        model_file(tmp_path / "student.onnx", spec()),
        model_file(tmp_path / "pruned.onnx", spec(graph=narrow)),
        model_file(tmp_path / "int8.onnx", spec(graph=narrow, quant=QUANT)),
        json_file(tmp_path / "train.json", History(file="student.pt", history=tuple(history()))),
    ]
    page = Page(render([*files, *files]))
    # Curves, widths of the pruned network, bits.
    pictures = [source for source in page.sources if source.startswith("data:")]
    assert len(pictures) == 3
    assert len(set(page.sources)) == len(page.sources)


def test_marks_of_direction_and_escapes_in_a_file_reach_no_page(tmp_path: Path) -> None:
    hostile = "happy\x1b[31m\u202e\u2066\udce9<b>"
    entry = evaluation(hostile)
    per_class = {f"{hostile}{k}": figures for k, figures in enumerate(entry.per_class.values())}
    entry = replace(entry, per_class=per_class)
    files = [
        model_file(tmp_path / "m.onnx", spec()),
        json_file(tmp_path / "eval.json", entry),
        json_file(tmp_path / "train.json", History(file=f"{hostile}.pt", history=tuple(history()))),
    ]
    for as_markdown in (False, True):
        content = render(files, as_markdown=as_markdown)
        content.encode()
        assert not set("\x1b\u202e\u2066\udce9") & set(content)
    assert Page(render(files)).open == []


def test_texts_of_files_in_figures_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = "\x1b[31m\u202e\u4e2d\x07"
    report = bench_report("a.onnx", "b.onnx")
    report = replace(report, results=tuple(replace(entry, split=odd) for entry in report.results))
    swept = sweep({odd: [odd, "b"], "c": [1, 2]})
    lines = sweep({odd: [odd, "b", "c"]})
    files = [
        json_file(tmp_path / f"{index}.json", entry)
        for index, entry in enumerate((report, swept, lines))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render(files)
    assert capfd.readouterr() == ("", "")


def test_hundreds_of_entries_get_no_figures_that_nobody_could_read(tmp_path: Path) -> None:
    names = [f"{number}.onnx" for number in range(200)]
    many = EvaluationReport(tuple(evaluation(name) for name in names))
    seeds = sweep({}, tuple(range(300)))
    contents: tuple[Result, ...] = (many, bench_report(*names), seeds)
    files = [
        json_file(tmp_path / f"{index}.json", content) for index, content in enumerate(contents)
    ]
    page = Page(render(files))
    assert "199.onnx" in page.text
    assert page.text.count("Confusion matrix of") == 30
    # The curves of the first seeds.
    assert len([source for source in page.sources if source.startswith("data:")]) == 1


def headings(content: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", content)


def test_the_contents_lead_to_every_section_and_a_short_page_has_none(tmp_path: Path) -> None:
    files = [
        model_file(tmp_path / "student.onnx", spec()),
        json_file(tmp_path / "eval.json", EvaluationReport((evaluation(),), COMPARISONS)),
    ]
    content = render(files)
    links = re.findall(r'<li><a href="#([^"]+)">(.*?)</a>', content)
    assert [title for _, title in links] == headings(content)
    for target, _ in links:
        assert content.count(f'id="{target}"') == 1
    alone = render([json_file(tmp_path / "one.json", evaluation())])
    assert headings(alone) == ["Accuracy"]
    assert "<nav" not in alone


def test_the_verdict_stands_above_everything(tmp_path: Path) -> None:
    files = [
        json_file(tmp_path / "bench.json", bench_report("models/student.pt", "models/int8.onnx")),
        json_file(tmp_path / "eval.json", EvaluationReport((evaluation(),), COMPARISONS)),
    ]
    content = render(files)
    verdict = "int8.onnx against student.pt: 2.0 x smaller, 2.0 x faster"
    assert content.index(verdict) < content.index("Article 5(1)(f)") < content.index("<h2")
    assert content.index("before 4.87 MB") < content.index("<h2")
    card = render(files, as_markdown=True)
    assert card.splitlines()[2].startswith(f"**{verdict}")


def test_no_figure_stands_in_two_tables(tmp_path: Path) -> None:
    header = spec()
    path = model_file(tmp_path / "student.onnx", header)
    measured = replace(
        evaluation(str(path)), n=3589, accuracy=0.6417, accuracy_ci95=(0.6258, 0.6572)
    )
    measured = replace(measured, digest=header.digest, deduplicated=None)
    report = bench_report(str(path))
    (entry,) = report.results
    entry = replace(
        entry,
        digest=header.digest,
        size_bytes=path.stat().st_size,
        accuracy=0.6417,
        accuracy_ci95=(0.6258, 0.6572),
    )
    report = replace(report, results=(entry,), warnings=())
    files = [
        path,
        json_file(tmp_path / "bench.json", report),
        json_file(tmp_path / "eval.json", measured),
    ]
    tables = "".join(re.findall(r"<table.*?</table>", render(files), re.DOTALL))
    for figure in ("64.2 %", "1.19 M", "10.1 M", "float32"):
        assert tables.count(figure) == 1, figure
    # Another network's accuracy is a figure of its own.
    other = json_file(tmp_path / "eval.json", replace(measured, digest="aa"))
    tables = "".join(re.findall(r"<table.*?</table>", render([*files[:2], other]), re.DOTALL))
    assert tables.count("64.2 %") == 3


def test_pictures_and_tables_can_be_read_without_seeing(tmp_path: Path) -> None:
    files = [
        model_file(tmp_path / "student.onnx", spec()),
        json_file(tmp_path / "bench.json", bench_report("a.onnx", "b.onnx")),
        json_file(tmp_path / "one.json", evaluation("alone.pt")),
    ]
    content = render(files)
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in re.findall("<img[^>]*>", content))
    assert "<th>" not in content, "each has a scope"
    assert content.count("<h1") == 1
    levels = [int(level) for level in re.findall(r"<h(\d)", content)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert 'lang="en"' in content
    # On a phone, where rows of wide tables are lists, every value has its column's title.
    assert 'data-title="latency, 90th pct."' in content


def test_colors_of_the_page_can_be_read_by_day_and_by_night() -> None:
    style = STYLE_SHEET.read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for block in (light, dark):
        colors = dict(re.findall(r"--(\w+): (#\w+)", block))
        for name in ("ink", "quiet", "accent"):
            for ground in ("paper", "card", "notice"):
                assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    assert "prefers-color-scheme: dark" in style
