"""The page in a real Chromium.

Needs the Python package playwright, a Chromium ($FERTOOL_CHROMIUM, else one on the path) and
onnxruntime-web ($FERTOOL_ORT_WEB: the archive of `npm pack` or a folder). Errors in the console
fail every test.
"""

import io
import os
import re
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fertool as ft
from fertool.data.synth import draw_faces
from fertool.web.server import AppServer

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: fertool[browser]")

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "nano_resnet.int8.onnx"
PICTURES = ROOT / "tests" / "faces" / "pictures"
RUNTIME = os.environ.get("FERTOOL_ORT_WEB")
CHROMIUM = os.environ.get("FERTOOL_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LONGEST_S = 60
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: $FERTOOL_CHROMIUM"),
    pytest.mark.skipif(not RUNTIME, reason="needs onnxruntime-web: make web-runtime"),
]


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    """Write a page once; returns what `fertool.app` does."""
    made = {}

    def make(model=MODEL, **options):
        key = (str(model), *sorted(options.items()))
        if key not in made:
            path = tmp_path_factory.mktemp("app") / "app.html"
            made[key] = ft.app(model, path, runtime=Path(RUNTIME), **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def scene():
    """Two drawn faces in a picture of 640 x 480; the second moves with `shift`."""
    tiles = np.asarray(draw_faces(8, 3, 160)[0]).reshape(-1, 160, 160)

    def draw(shift=0):
        pixels = np.full((480, 640), 150, np.uint8)
        pixels[60:220, 60:220] = tiles[1]
        pixels[200:360, 300 + shift : 460 + shift] = tiles[3]
        return Image.fromarray(pixels).convert("RGB")

    return draw


@pytest.fixture(scope="session")
def stream(tmp_path_factory, scene):
    """A video of drawn faces, as Chromium's fake camera takes it: YUV4MPEG2, 30 frames a second."""
    path = tmp_path_factory.mktemp("camera") / "faces.y4m"
    with open(path, "wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg\n")
        for number in range(30):
            luma = np.asarray(scene(abs(15 - number)).convert("L"))
            # Gray: both color planes in their middle, a quarter of the size each.
            file.write(b"FRAME\n" + luma.tobytes() + bytes([128]) * (2 * 320 * 240))
    return path


@pytest.fixture(scope="session")
def driver():
    with playwright.sync_playwright() as driver:
        yield driver


@contextmanager
def launched(driver, *flags):
    # Containers run as root, where Chromium has no sandbox.
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def browser(driver, stream):
    """A Chromium whose camera shows the drawn faces and is allowed."""
    with launched(driver, *FAKE_CAMERA, f"--use-file-for-fake-video-capture={stream}") as browser:
        yield browser


class Phone:
    """A page with what happened in it: requests, errors of the console, faces that it found."""

    def __init__(self, browser, url, **options):
        size = {"width": 360, "height": 740}
        self.context = browser.new_context(viewport=size, **options)
        self.page = self.context.new_page()
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._listen)
        self.open(url)

    def _listen(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def open(self, url):
        self.page.goto(url)
        self.until("document.body.classList.contains('ready')")
        self.page.evaluate(
            "seen = []; document.addEventListener('fertool:faces', (e) => seen.push(e.detail))"
        )

    def until(self, condition):
        # Not wait_for_function, which needs the eval that the page's policy forbids.
        end = time.monotonic() + LONGEST_S
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"{condition}: {self.errors} {self.status}"
            self.page.wait_for_timeout(50)

    @property
    def status(self):
        return self.page.inner_text("#status")

    @property
    def message(self):
        self.until("document.body.dataset.shows === 'message'")
        return self.page.inner_text("#message-title")

    def give(self, content, name="photo.png"):
        self.page.evaluate("seen.length = 0")
        file = {"name": name, "mimeType": "image/png", "buffer": content}
        self.page.set_input_files("#photo", file)

    def faces(self, content):
        self.give(content)
        self.until("seen.length > 0")
        return self.page.evaluate("seen[0].faces")


@pytest.fixture
def phone(browser):
    opened = []

    def open_page(url, **options):
        opened.append(Phone(browser, url, **options))
        return opened[-1]

    yield open_page
    for each in opened:
        each.context.close()
        assert each.errors == []


@pytest.fixture
def page(phone, app):
    return phone(app().path.as_uri(), permissions=["camera"])


@contextmanager
def served(files):
    with AppServer(0) as server:
        server.files = files
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def assert_same(found, expected):
    expected = sorted(expected, key=lambda face: face.box[0])
    assert [face["label"] for face in found] == [face.label for face in expected]
    for face, other in zip(found, expected, strict=True):
        assert np.allclose(face["box"], other.box, atol=3), (face["box"], other.box)
        probabilities = list(other.probabilities.values())
        assert np.allclose(face["probabilities"], probabilities, atol=0.05)


def pictures(scene):
    astronaut = Image.open(PICTURES / "astronaut.jpg")
    return {
        "drawn": png(scene()),
        "large": png(scene().resize((1920, 1440), Image.Resampling.BICUBIC)),
        "sideways": png(scene().rotate(90, expand=True)),
        # The face is larger than any that the detector finds at the first size.
        "close": png(scene().crop((75, 75, 205, 205)).resize((700, 700))),
        "astronaut": (PICTURES / "astronaut.jpg").read_bytes(),
        "small": png(astronaut.resize((120, 120))),
        "cat": (PICTURES / "chelsea.jpg").read_bytes(),
        "coffee": (PICTURES / "coffee.jpg").read_bytes(),
    }


def test_photos_give_the_same_faces_as_in_python(page, scene, tmp_path):
    counts = {}
    for name, content in pictures(scene).items():
        file = tmp_path / name
        file.write_bytes(content)
        file = file.rename(file.with_suffix(".jpg"))
        (expected,) = ft.predict(MODEL, file)
        found = page.faces(content)
        assert_same(found, expected.faces)
        counts[name] = len(found)
        hint = page.page.locator("#hint")
        assert hint.is_visible() == (not found)
    assert counts["drawn"] == 2
    assert counts["astronaut"] == counts["close"] == 1
    assert counts["coffee"] == 0
    assert "No face found" in page.page.inner_text("#hint")
    # A page from a file asks for nothing, not even its own parts.
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_model_of_another_kind_keeps_its_contract(phone, app, scene, tmp_path):
    import torch

    from fertool import models
    from fertool.spec import InputSpec

    torch.manual_seed(0)
    classes = ("bored", "</script><b>engaged", "confused", *(f"class {i}" for i in range(9)))
    input = InputSpec(3, 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    spec, module = models.create("nano_resnet", {"width_mult": 0.25}, input, classes)
    # Random weights: logits that differ between classes and images.
    torch.nn.init.normal_(module.get_parameter("fc.weight"), std=3)
    models.save_model(tmp_path / "m.pt", spec, module)

    page = phone(app(tmp_path / "m.pt", title="A & B").path.as_uri())
    file = tmp_path / "astronaut.png"
    file.write_bytes(png(Image.open(PICTURES / "astronaut.jpg")))
    (expected,) = ft.predict(tmp_path / "m.pt", file)
    assert_same(page.faces(file.read_bytes()), expected.faces)
    assert page.page.title() == "A & B"
    # Of twelve classes the ten most probable have bars.
    assert page.page.locator(".bar").count() == 10
    assert page.page.locator("b").count() == 0


def test_what_cannot_be_opened_is_said_in_words(page):
    jpeg = (PICTURES / "astronaut.jpg").read_bytes()
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2
    cases = {
        "This file is not a picture": b"some text",
        "This file is empty": b"",
        "This picture is damaged": jpeg[:9000],
        "This picture is too large": header + b"\x08\2\0\0\0",
        "This browser cannot open this kind of picture": b"\0\0\0\x18ftypheic" + bytes(99),
    }
    for title, content in cases.items():
        page.give(content)
        page.until(f"document.getElementById('status').textContent.startsWith('{title}')")
        assert page.message == title
    # And the page goes on.
    assert len(page.faces(jpeg)) == 1


def test_the_camera_follows_faces_and_is_released(page):
    page.page.click("#camera")
    page.until("seen.length > 40")
    frames = page.page.evaluate("seen.slice(-25)")
    assert all(len(frame["faces"]) == 2 for frame in frames)
    # Numbers stay, labels do not flicker.
    assert len({face["number"] for frame in frames for face in frame["faces"]}) == 2
    assert len({tuple(face["label"] for face in frame["faces"]) for frame in frames}) == 1
    assert page.page.get_attribute("#camera", "aria-pressed") == "true"
    page.page.click("#camera")
    count = page.page.evaluate("seen.length")
    page.page.wait_for_timeout(300)
    assert page.page.evaluate("seen.length") <= count + 1
    assert page.page.inner_text("#camera") == "Camera"


def test_it_is_used_by_keyboard_and_ear(page, scene):
    page.faces(png(scene()))
    assert re.fullmatch(r"2 faces: \w+, \d+ %; \w+, \d+ %\.", page.status)
    assert page.page.get_attribute("#view", "aria-label") == page.status
    page.page.keyboard.press("Tab")
    reached = []
    for _ in range(6):
        reached.append(
            page.page.evaluate("document.activeElement.id || document.activeElement.tagName")
        )
        page.page.keyboard.press("Tab")
    assert [name for name in reached if name in ("about-open", "camera", "photo")] == [
        "about-open", "camera", "photo"
    ]  # fmt: skip
    assert "SUMMARY" in reached
    page.page.focus("#about-open")
    page.page.keyboard.press("Enter")
    assert page.page.is_visible("#about")
    text = page.page.inner_text("#about")
    assert "nano_resnet.int8.onnx" in text
    assert "Article 5(1)(f)" in text
    page.page.click("#licenses summary")
    page.until("document.querySelector('#licenses pre').textContent.includes('Microsoft')")
    page.page.keyboard.press("Escape")
    assert not page.page.is_visible("#about")
    assert "prohibited in the European Union" in page.page.inner_text("footer")


@pytest.mark.parametrize("width", [320, 360, 820, 1440])
def test_nothing_is_wider_than_the_screen(page, scene, width):
    page.page.set_viewport_size({"width": width, "height": 740})
    page.faces(png(scene()))
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_site_works_without_its_host_afterwards(phone, app, scene):
    made = app(folder=True)
    with served(made.files) as server:
        page = phone(server.url)
        assert all(url.startswith((server.url, "blob:")) for url in page.requests)
        page.page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
        page.until("caches.keys().then((keys) => keys.length)")
        page.until("!!navigator.serviceWorker.controller")
    page.open(server.url)
    assert len(page.faces(png(scene()))) == 2


def test_a_page_without_https_says_why_there_is_no_camera(driver, app, scene):
    with (
        served(app().files) as server,
        launched(driver, "--host-resolver-rules=MAP insecure.test 127.0.0.1") as browser,
    ):
        page = Phone(browser, f"http://insecure.test:{server.server_port}/")
        page.page.click("#camera")
        assert page.message == "The camera needs a secure page"
        assert len(page.faces(png(scene()))) == 2
        assert page.errors == []


def test_a_refused_and_a_missing_camera_are_two_messages(driver, app):
    with launched(driver, FAKE_CAMERA[0], "--deny-permission-prompts") as browser:
        page = Phone(browser, app().path.as_uri())
        page.page.click("#camera")
        assert page.message == "The camera was not allowed"
        assert page.errors == []
    with launched(driver, FAKE_CAMERA[1]) as browser:
        page = Phone(browser, app().path.as_uri())
        page.page.click("#camera")
        assert page.message == "No camera found"
        assert page.errors == []
