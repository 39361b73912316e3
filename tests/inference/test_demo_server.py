"""The demo's server answers its own page, and nobody else."""

import base64
import json
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.inference.demo_server import answer, make_server
from nightjax.inference.images import decode_image
from nightjax.inference.overlay import encode_image
from nightjax.inference.predict import Prediction


def predict(image):
    """The left quarter is road, the rest sky; nothing is known of the first row."""
    label = np.full(image.shape[:2], 10, np.uint8)
    label[:, : image.shape[1] // 4] = 0
    label[0] = 255
    return Prediction(label, np.full(image.shape[:2], 0.5, np.float32), None)


PHOTO = encode_image(np.full((20, 40, 3), 90, np.uint8))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    example = tmp_path_factory.mktemp("examples") / "0.jpg"
    example.write_bytes(b"jpeg")
    server = make_server(predict, CITYSCAPES, "a <network>", [example])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(address, data=None, **headers):
    request = urllib.request.Request(address, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_an_answer_has_colors_confidence_and_shares():
    found = answer(PHOTO, predict, CITYSCAPES)
    assert [(c["name"], c["color"], c["share"]) for c in found["classes"]] == [
        ("sky", "#4682b4", 71.2),
        ("road", "#804080", 23.8),
    ]
    shown = decode_image(base64.b64decode(found["overlay"].partition(",")[2]))
    assert shown.shape == (20, 40, 3)
    confidence = decode_image(base64.b64decode(found["confidence"].partition(",")[2]))
    assert abs(confidence.astype(int) - 128).max() < 4


def test_the_page_and_its_parts(address):
    status, headers, page = ask(f"{address}/")
    assert (
        status == 200 and b"<title>nightjax demo" in page and "script-src 'self'" in headers["Content-Security-Policy"]
    )
    assert b"segment(photo)" in ask(f"{address}/demo.js")[2]
    assert json.loads(ask(f"{address}/about.json")[2]) == {"about": "a <network>", "examples": ["0.jpg"]}
    assert ask(f"{address}/examples/0.jpg")[2] == b"jpeg"
    for path in ("/nowhere", "/../setup.cfg", "/examples/../about.json"):
        assert ask(address + path)[0] == 404


def test_a_photo_is_segmented_and_what_is_none_is_refused_in_a_line(address):
    status, _, content = ask(f"{address}/segment", PHOTO)
    assert status == 200 and json.loads(content)["classes"][0]["name"] == "sky"
    status, _, content = ask(f"{address}/segment", b"no photo")
    assert status == 422 and content.startswith(b"the photo ") and b"\n" not in content
    assert ask(f"{address}/segment", b"")[0] == 400
    assert ask(f"{address}/", PHOTO)[0] == 400


def test_other_sites_are_refused(address):
    assert ask(f"{address}/segment", PHOTO, Origin="http://evil.example")[0] == 403
    assert ask(f"{address}/about.json", Host="evil.example")[0] == 403
    assert ask(f"{address}/segment", PHOTO, Origin=address)[0] == 200


def test_a_port_that_is_taken(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(UserError, match=f"--port={port} cannot be used"):
        make_server(predict, CITYSCAPES, "", [], port)
