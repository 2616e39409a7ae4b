"""The notebooks run as they stand, with fewer epochs, and show what they say."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))
import notebooks  # noqa: E402

CHAIN = ROOT / "docs" / "tutorial" / "chain.ipynb"


def text_of(cell):
    return "".join(cell["source"])


@pytest.fixture
def chain():
    return json.loads(CHAIN.read_text(encoding="utf-8"))


def test_the_chain_in_python_ends_with_the_bytes_of_the_commands(chain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # As many as the tests have in their own process: sums of floats follow the threads.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for cell in notebooks.code_cells(chain):
        source = text_of(cell)
        for epochs in ("epochs=5", "epochs=2", "--epochs 5", "--epochs 2"):
            source = source.replace(epochs, f"{epochs[:-1]}1")
        cell["source"] = source
    names = notebooks.run(chain)
    assert names["same_model"]
    assert names["same_onnx"]


def test_the_chain_is_kept_with_its_outputs(chain):
    cells = notebooks.code_cells(chain)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert cells[-1]["outputs"][0]["data"]["text/plain"] == "(True, True)"


def test_a_notebook_becomes_a_page_with_text_and_pictures(chain):
    page = notebooks.to_markdown(chain)
    assert page.startswith("# The chain in Python\n")
    assert "```python\nimport fertool\n" in page
    assert "```text\n(True, True)\n```" in page
    assert "![output](data:image/png;base64," in page
