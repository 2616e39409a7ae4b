"""Run notebooks without Jupyter, and show them as pages: a hook of MkDocs; see `make notebooks`.

Cells are executed as in a notebook: in order, in one namespace, with the last expression as the
output. Cells without magic commands are all that is understood.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Cell = dict[str, Any]
_DOCS = Path(__file__).parent


def main() -> None:
    """Run all notebooks and keep their outputs in them."""
    for path in sorted(_DOCS.rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with temporary_working_folder():
            run(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Execute the code cells and put their outputs into them; returns the names they define."""
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell["execution_count"] = number
        cell["outputs"] = list(_execute(_text(cell["source"]), number, names))
    return names


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    """Return the cells of a notebook that are code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def to_markdown(notebook: dict[str, Any]) -> str:
    """Return a notebook with its outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, in its place and under its name."""
    from mkdocs.structure.files import File

    for path in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        page = path.relative_to(config.docs_dir).with_suffix(".md").as_posix()
        text = to_markdown(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, page, content=text))
    return files


@contextlib.contextmanager
def temporary_working_folder() -> Iterator[None]:
    """Work in a new folder, which is removed afterwards."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _execute(source: str, number: int, names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run one cell; yield what it prints and the value of its last expression."""
    code = ast.parse(source, filename=f"cell {number}")
    last: ast.Expression | None = None
    if code.body and isinstance(code.body[-1], ast.Expr):
        last = ast.Expression(code.body.pop().value)  # type: ignore[attr-defined]
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(last, f"cell {number}", "eval"), names)
    if printed.getvalue():
        yield {"output_type": "stream", "name": "stdout", "text": printed.getvalue()}
    if value is not None:
        yield {
            "output_type": "execute_result",
            "execution_count": number,
            "metadata": {},
            "data": _representations(value),
        }


def _representations(value: Any) -> dict[str, str]:
    """Return a value as text and, where it is a picture, as PNG."""
    data = {"text/plain": repr(value)}
    if hasattr(value, "_repr_png_"):
        data = {
            "text/plain": f"<{type(value).__name__}>",
            "image/png": base64.b64encode(value._repr_png_()).decode(),
        }
    return data


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![output](data:image/png;base64,{_text(data['image/png'])})"
    text = _text(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```"


def _text(source: str | list[str]) -> str:
    """Return a text that notebooks may keep as a list of lines."""
    return source if isinstance(source, str) else "".join(source)


if __name__ == "__main__":
    main()
