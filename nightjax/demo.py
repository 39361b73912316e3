# SPDX-License-Identifier: Apache-2.0
"""Opens a page on this computer on which you drop a night photo and see its classes.

    nightjax demo
    nightjax demo --workdir=runs/dsr_fpa --port=8000
    nightjax demo --workdir=runs/dsr_fpa --network=teacher

Without --workdir it shows the network that comes with nightjax. The page, its photos and the network stay on this
computer: the server listens to 127.0.0.1 alone. Ctrl-C ends it.
"""

import webbrowser
from collections.abc import Sequence

from absl import flags

from nightjax import api, bundled
from nightjax.core import cli
from nightjax.inference.demo_server import make_server


def main(argv: Sequence[str]) -> None:
    """Serves the page until it is interrupted."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", "", "Folder of a run; by default the network that comes with nightjax.", flag_values=values
    )
    flags.DEFINE_integer("port", 8765, "Of the page; 0 for a free one.", 0, 65535, flag_values=values)
    flags.DEFINE_bool("browser", True, "Open the page in the browser.", flag_values=values)
    cli.define_checkpoint(values)
    cli.parse(values, argv, __doc__)
    cli.use_compilation_cache()
    model = api.load(values.workdir, network=values.network, step=values.step)
    about = (
        f"This is {bundled.WHAT}." if not values.workdir else f"The network of {values.workdir}, step {model.run.step}."
    )
    server = make_server(model.predict, model.classes, about, bundled.EXAMPLES, values.port)
    address = f"http://127.0.0.1:{server.server_port}"
    print(f"{address} is open; Ctrl-C ends it", flush=True)
    if values.browser:
        webbrowser.open(address)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    cli.run(main)
