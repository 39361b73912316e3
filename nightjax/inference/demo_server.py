# SPDX-License-Identifier: Apache-2.0
"""A page on this computer on which one drops a photo and sees its classes; the standard library's server."""

import base64
import http.server
import importlib.resources
import json
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.inference import overlay
from nightjax.inference.images import decode_image
from nightjax.inference.predict import Prediction

LARGEST = 256 * 2**20
"""Bytes of a photo that are taken."""

SHOWN = 1600
"""Rows or columns, whichever are more, at which results are sent to the page."""

POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
)

Predict = Callable[[np.ndarray], Prediction]


def answer(data: bytes, predict: Predict, classes: ClassSet) -> dict[str, Any]:
    """What the page shows of one photo.

    Args:
        data: an encoded image of any format that `decode_image` takes.
        predict: uint8 [H, W, 3] to labels and confidences.
        classes: of the labels.

    Returns:
        ``overlay`` and ``confidence``, JPEG images as data addresses; and ``classes``, the largest first, each with
        ``name``, ``color`` ``#rrggbb`` and ``share`` of the pixels in percent.

    Raises:
        UserError: it is no image.
    """
    image = decode_image(data, "the photo")
    found = predict(image)
    counts = np.bincount(found.label[found.label != IGNORE], minlength=len(classes))
    listed = [
        {
            "name": classes.names[k],
            "color": "#{:02x}{:02x}{:02x}".format(*classes.palette[k]),
            "share": round(100 * float(counts[k]) / found.label.size, 1),
        }
        for k in np.argsort(-counts, kind="stable")
        if counts[k]
    ]
    every = -(-max(image.shape[:2]) // SHOWN)
    shown = overlay.blend(image, found.label, palette=classes.colors)[::every, ::every]
    gray = np.round(255 * found.confidence).astype(np.uint8)[::every, ::every]
    return {
        "overlay": _address(shown),
        "confidence": _address(np.repeat(gray[..., None], 3, axis=2)),
        "classes": listed,
    }


def make_server(
    predict: Predict, classes: ClassSet, about: str, examples: Sequence[pathlib.Path], port: int = 0
) -> http.server.ThreadingHTTPServer:
    """A server for this computer alone; ``serve_forever()`` starts it.

    It answers requests that name it by ``127.0.0.1`` or ``localhost`` and come from its own page, so no other web site
    can use it.

    Args:
        predict, classes: see `answer`.
        about: text on the page: which network this is.
        examples: JPEG files to try.
        port: 0 for a free one.

    Raises:
        UserError: the port is taken.
    """
    lock = threading.Lock()
    files = importlib.resources.files("nightjax.inference")
    facts = {"about": about, "examples": [path.name for path in examples]}
    pages = {
        "/": ("text/html; charset=utf-8", (files / "demo.html").read_bytes()),
        "/demo.js": ("text/javascript", (files / "demo.js").read_bytes()),
        "/about.json": ("application/json", json.dumps(facts).encode()),
        **{f"/examples/{path.name}": ("image/jpeg", path.read_bytes()) for path in examples},
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._is_own():
                return
            kind, content = pages.get(self.path, ("text/plain", b"there is no such page"))
            self._send(200 if self.path in pages else 404, kind, content)

        def do_POST(self) -> None:
            if not self._is_own():
                return
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != "/segment" or not 0 < length <= LARGEST:
                self._send(400, "text/plain", f"send a photo of at most {LARGEST} bytes to /segment".encode())
                return
            data = self.rfile.read(length)
            try:
                with lock:
                    content = json.dumps(answer(data, predict, classes)).encode()
            except UserError as error:
                self._send(422, "text/plain; charset=utf-8", str(error).encode())
                return
            self._send(200, "application/json", content)

        def log_message(self, *arguments: Any) -> None:
            """Says nothing: the page shows what happens."""

        def _is_own(self) -> bool:
            hosts = {f"{name}:{self.connection.getsockname()[1]}" for name in ("127.0.0.1", "localhost")}
            origin = self.headers.get("Origin")
            if self.headers.get("Host") in hosts and (origin is None or origin.removeprefix("http://") in hosts):
                return True
            self._send(403, "text/plain", b"this server answers its own page alone")
            return False

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(
            f"--port={port} cannot be used ({error.strerror}); choose another, or 0 for a free one"
        ) from error


def _address(image: np.ndarray) -> str:
    """A uint8 [h, w, 3] image as an address that a page shows."""
    return "data:image/jpeg;base64," + base64.b64encode(overlay.encode_photo(image)).decode()
