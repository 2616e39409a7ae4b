"""A stand-in for onnxruntime-web: the tests of the page's text need its form only."""

import io
import tarfile

import pytest

SCRIPT = (
    "const a=1,b=2;export{a as InferenceSession,b as Tensor,b as default};\n"
    "//# sourceMappingURL=x.map\n"
)
BINARY = b"\0asm" + bytes(100)
NAMES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture
def runtime(tmp_path):
    """A folder as npm installs it."""
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / NAMES[0]).write_text(SCRIPT)
    (folder / "dist" / NAMES[1]).write_bytes(BINARY)
    return folder


@pytest.fixture
def archive(tmp_path):
    """An archive as `npm pack` writes it."""
    path = tmp_path / "onnxruntime-web-1.30.0.tgz"
    with tarfile.open(path, "w:gz") as file:
        for name, content in zip(NAMES, (SCRIPT.encode(), BINARY), strict=True):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path
