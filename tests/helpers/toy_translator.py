"""A UNIT of a few thousand parameters on the folder data set of `toy.write_folder`."""

from ml_collections import ConfigDict

from nightjax.core.config import call
from nightjax.run import settings
from tests.helpers import toy


def config(root, *, steps=4, batch=2, **overrides):
    """A config of the method ``unit``; the images of `toy.write_folder` are both domains."""
    plain = settings.complete(call("unit")).to_dict()
    stream = {"dataset": "folder", "split": "train", "crop": toy.SIZE, "fields": ("image",)}
    plain["data"] |= {"streams": {"source": stream, "target": stream}, "manual_dir": str(root)}
    plain["model"] |= {"features": 2, "blocks": 1}
    plain["method"]["discriminator"] |= {"features": 2, "layers": 2, "scales": 2}
    plain["train"] |= {"steps": steps, "batch": batch, "devices": 1}
    plain["checkpoint"] = {"every": 2, "keep": 10, "best": ""}
    plain["log"]["every"] = 1
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return settings.override(settings.complete(ConfigDict(plain)), changes)
