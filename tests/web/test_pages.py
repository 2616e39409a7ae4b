import base64
import gzip
import hashlib
import html
import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from fertool.web.pages import AppParts, single_page, site_files
from fertool.web.runtime_files import find_runtime
from fertool.web.settings import (
    ClassifierSettings,
    DetectorSettings,
    PageSettings,
    PageTexts,
)

HOSTILE = "</script><img src=x onerror=alert(1)>"
TEXTS = PageTexts(
    title="Faces & <friends>",
    intended="Intended.",
    excluded="Excluded.",
    prohibited="Prohibited at work.",
    limits="Limits.",
    facts=(("file", f"{HOSTILE}.onnx"),),
)


@pytest.fixture
def parts(runtime):
    classifier = ClassifierSettings(("happy", HOSTILE, "\ud800"), 1, 48, ((0.5, 0.5),) * 5, 16)
    detector = DetectorSettings(640, 320, 0.7, (320, 160), 160, 1 << 22, 32, (8, 16, 32), 0.3)
    settings = PageSettings(classifier, detector, TEXTS, min_confidence=0.0, smooth_s=0.25)
    return AppParts(settings, b"model" * 100, b"detector", find_runtime(runtime), "MIT & others")


def policy_of(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    directives = {}
    for directive in html.unescape(policy).split("; "):
        name, *values = directive.split(" ")
        directives[name] = values
    return directives


def test_the_policy_allows_the_own_scripts_of_a_single_page_and_nothing_else(parts):
    page = single_page(parts).decode()
    policy = policy_of(page)
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == 2
    assert policy["script-src"] == [*map(hash_of, scripts), "'wasm-unsafe-eval'"]
    assert policy["style-src"] == [hash_of(style)]
    assert policy["default-src"] == policy["connect-src"] == ["'none'"]
    # Attributes that would be scripts or styles, which the policy forbids.
    assert not re.search(r"\s(on\w+|style)=", page.partition("<body")[2].partition("<script")[0])


def hash_of(text):
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@pytest.mark.parametrize("make", [single_page, lambda parts: site_files(parts)["index.html"]])
def test_names_of_others_stay_text(parts, make):
    page = make(parts).decode()
    assert "<title>Faces &amp; &lt;friends&gt;</title>" in page
    assert "onerror=alert" not in re.sub(r'<script type="application/json".*?</script>', "", page)
    (text,) = re.findall(r'id="settings">(.*?)</script>', page, re.DOTALL)
    assert json.loads(text)["classifier"]["classes"][1] == HOSTILE
    assert "{{" not in page


def test_the_page_names_no_other_place(parts):
    files = {"page": single_page(parts), **site_files(parts)}
    for name, content in files.items():
        if name.endswith((".gz", ".png", ".mjs")):
            continue
        text = content.decode()
        loaded = re.findall(
            r"(?:src|href|url\(|fetch\(|import\()\s*=?\s*['\"]?(https?:[^'\")]*)", text
        )
        assert not loaded, name


def test_the_files_of_a_single_page_are_inside(parts):
    page = single_page(parts).decode()
    embedded = dict(
        re.findall(r'<script type="application/octet-stream" id="file:([^"]+)">(.*?)<', page)
    )
    assert set(embedded) == {
        "onnxruntime-web.wasm.gz", "detector.onnx.gz", "model.onnx.gz", "notices.txt.gz"
    }  # fmt: skip
    model = gzip.decompress(base64.b64decode(embedded["model.onnx.gz"]))
    assert model == parts.model


def test_the_same_parts_give_the_same_bytes(parts):
    assert single_page(parts) == single_page(parts)
    assert site_files(parts) == site_files(parts)


def test_a_site_can_be_installed_and_is_kept_whole(parts):
    files = site_files(parts)
    manifest = json.loads(files["app.webmanifest"])
    assert manifest["name"] == "Faces & <friends>"
    assert manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        assert icon["src"].removeprefix("./") in files
    for size in (180, 192, 512):
        assert Image.open(io.BytesIO(files[f"icon-{size}.png"])).size == (size, size)

    worker = files["service-worker.js"].decode()
    cached = json.loads(re.search(r"FILES = (\[.*?\]);", worker, re.DOTALL)[1])
    kept = {name.removeprefix("./") or "index.html" for name in cached}
    assert kept == set(files) - {"service-worker.js"}
    assert policy_of(files["index.html"].decode())["script-src"] == ["'self'", "'wasm-unsafe-eval'"]


def test_another_model_is_another_version_of_a_site(parts):
    def version(parts):
        return re.search(r"VERSION = '(\w+)'", site_files(parts)["service-worker.js"].decode())[1]

    assert version(parts) == version(parts)
    assert version(parts) != version(replace(parts, model=b"other"))
