"""The page as one file, or as the files of a folder for a host."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fertool.web import icons
from fertool.web.runtime_files import RuntimeFiles
from fertool.web.settings import PageSettings
from fertool.web.sources import (
    SERVICE_WORKER,
    fill,
    joined_modules,
    module_names,
    read_source,
)

INDEX = "index.html"
_MANIFEST = "app.webmanifest"
_RUNTIME_MODULE = "onnxruntime-web.mjs"
_ICON_SIZES = (192, 512)
_TOUCH_ICON = 180
_OFFLINE = (
    " It works without a network. To keep it, add it to the home screen or save it as a bookmark."
)

AppFiles = Mapping[str, bytes]
"""The files of an app by their names; the first to be opened is index.html."""


@dataclass(frozen=True)
class AppParts:
    """What a page is made of: settings, the two networks, the runtime, licenses."""

    settings: PageSettings
    model: bytes
    detector: bytes
    runtime: RuntimeFiles
    notices: str

    def packed(self) -> dict[str, bytes]:
        """Return the large files by their names, as gzip; the same content gives the same bytes."""
        contents = {
            "onnxruntime-web.wasm.gz": self.runtime.binary,
            "detector.onnx.gz": self.detector,
            "model.onnx.gz": self.model,
            "notices.txt.gz": self.notices.encode(),
        }
        # As small as it gets: packed once, loaded by many phones.
        return {name: gzip.compress(content, 9, mtime=0) for name, content in contents.items()}


def single_page(parts: AppParts) -> bytes:
    """Return the whole app as one HTML file that asks nothing of any other."""
    style = read_source("app.css")
    scripts = (parts.runtime.inline_script, joined_modules())
    policy = _policy(scripts=_hashes(scripts), style=_hashes([style]), connect=["'none'"])
    head = f'<link rel="icon" href="{icons.svg_as_url()}">\n<style>{style}</style>'
    body: list[str] = []
    for name, content in parts.packed().items():
        text = base64.b64encode(content).decode()
        body.append(f'<script type="application/octet-stream" id="file:{name}">{text}</script>')
    for script in scripts:
        body.append(f'<script type="module">{script}</script>')
    # A service worker is a file of its own, and pages from files may have none.
    json_text = parts.settings.to_json(service_worker=False)
    return _render(parts, policy, head, "\n".join(body), json_text, offline="")


def site_files(parts: AppParts) -> dict[str, bytes]:
    """Return the files of the app for a static host: installable, and kept for use offline."""
    files = parts.packed()
    files[_RUNTIME_MODULE] = parts.runtime.module.encode()
    for name in ["app.css", *module_names()]:
        files[name] = read_source(name).encode()
    for size in (*_ICON_SIZES, _TOUCH_ICON):
        files[f"icon-{size}.png"] = icons.png(size)
    files["icon.svg"] = icons.SVG.encode()
    files[_MANIFEST] = _manifest(parts.settings.texts.title)

    own = ["'self'"]
    policy = _policy(scripts=own, style=own, connect=own)
    head = "\n".join(
        [
            '<link rel="icon" href="./icon.svg">',
            f'<link rel="apple-touch-icon" href="./icon-{_TOUCH_ICON}.png">',
            f'<link rel="manifest" href="./{_MANIFEST}">',
            '<link rel="stylesheet" href="./app.css">',
        ]
    )
    body = '<script type="module" src="./main.js"></script>'
    json_text = parts.settings.to_json(service_worker=True)
    files[INDEX] = _render(parts, policy, head, body, json_text, offline=_OFFLINE)
    # Last: it names the content of all others.
    files[SERVICE_WORKER] = _service_worker(files)
    return files


def _render(
    parts: AppParts, policy: str, head: str, body: str, settings: str, *, offline: str
) -> bytes:
    texts = parts.settings.texts
    values = {
        "policy": html.escape(policy),
        "title": html.escape(texts.title),
        "head": head,
        "body": body,
        "settings": settings,
        "offline": offline,
        "prohibited": html.escape(texts.prohibited),
        "intended": html.escape(texts.intended),
        "excluded": html.escape(texts.excluded),
        "limits": html.escape(texts.limits),
    }
    return fill(INDEX, values).encode()


def _policy(scripts: Sequence[str], style: Sequence[str], connect: Sequence[str]) -> str:
    """Return the Content-Security-Policy: nothing from elsewhere, nothing to elsewhere."""
    directives = {
        "default-src": ["'none'"],
        # The only right beyond the page's own scripts: to compile WebAssembly.
        "script-src": [*scripts, "'wasm-unsafe-eval'"],
        "style-src": style,
        "img-src": ["'self'", "data:", "blob:"],
        "connect-src": connect,
        "manifest-src": ["'self'"],
        "worker-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(values)}" for name, values in directives.items())


def _hashes(texts: Sequence[str]) -> list[str]:
    """Return the sources that allow these inline elements and no others."""
    hashes: list[str] = []
    for text in texts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes.append(f"'sha256-{digest}'")
    return hashes


def _manifest(title: str) -> bytes:
    sized = [
        {"src": f"./icon-{size}.png", "sizes": f"{size}x{size}", "type": "image/png"}
        for size in _ICON_SIZES
    ]
    # Without one of this purpose Android puts the icon on a white disk.
    maskable = {**sized[-1], "purpose": "maskable"}
    manifest = {
        "name": title,
        "short_name": title,
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#f6f5f2",
        "theme_color": "#f6f5f2",
        "icons": [*sized, maskable, {"src": "./icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }
    return json.dumps(manifest, indent=2).encode()


def _service_worker(files: AppFiles) -> bytes:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    # The page itself by the name that a host gives it.
    cached = ["./", *(f"./{name}" for name in sorted(files) if name != INDEX)]
    values = {"version": digest.hexdigest()[:16], "files": json.dumps(cached, indent=2)}
    return fill(SERVICE_WORKER, values).encode()
