"""`fertool app`: a page that runs a model in the browser of a phone."""

from __future__ import annotations

from fertool.cli.options import AnyModelFile, Output
from fertool.cli.reporting import CONSOLE
from fertool.config.app import AppConfig, ServerConfig


def app(
    model: AnyModelFile,
    output: Output = None,
    config: AppConfig = AppConfig(),
    where: ServerConfig = ServerConfig(),
) -> None:
    """Write a page that labels faces in photos and before the camera, in the browser of a phone.

    One HTML file that works from a file, a web host or localhost, with and without a network; what
    the camera sees never leaves the device. Not for inferring the emotions of people at work or in
    education, which the EU's AI Act (Article 5(1)(f)) prohibits.

    Example: fertool app student.int8.onnx -o app.html --runtime onnxruntime-web-1.30.0.tgz

    Example: fertool app student.pt -o site --folder --runtime node_modules/onnxruntime-web
    """
    from fertool.report.console import note, path_result
    from fertool.web.server import AppServer
    from fertool.workflows.app import app as write_app
    from fertool.workflows.outputs import default_output

    output = output or default_output(model, "", "-app" if config.folder else ".html")
    server = AppServer(where.serve) if where.serve is not None else None
    page = write_app(model, output, config, reporter=CONSOLE)
    path_result(page.path)
    if server:
        server.files = page.files
        note(f"open {server.url} in a browser; Ctrl-C ends")
        server.serve_forever()
