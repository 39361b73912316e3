"""Brightens a labelled night set with SingleHDR: NightLab's enhancement baseline, which trains and tests on the result.

    python scripts/enhance_dataset.py --weights=singlehdr.npz --data=nightcity/plus --split=train,validation --manual_dir=DIR

The result is a prepared data set, ``translated/NAME``, as ``scripts/translate_dataset.py`` makes them: labels and names
are those of the nights. The weights are the published ones, converted to a ``.npz`` (see `interop.singlehdr`); they are
not part of nightjax. How NightLab mapped HDR to 8 bits is unknown; here every picture is scaled to mean 0.5 and goes
through log(1 + 10 x) / log 11.
"""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from nightjax.core import cli
from nightjax.data import sources, transforms
from nightjax.interop import singlehdr as weights
from nightjax.interop.weight_files import sha256
from nightjax.models.singlehdr import SingleHDR, enhance
from nightjax.prepare.translated import Translation


def main(argv: Sequence[str]) -> None:
    """Enhances the records that have no picture yet, and writes the data set."""
    values = flags.FlagValues()
    flags.DEFINE_string("weights", None, "File of SingleHDR's weights.", flag_values=values)
    flags.DEFINE_string("data", None, "Data set to enhance.", flag_values=values)
    flags.DEFINE_list("split", None, "Its splits.", flag_values=values)
    flags.DEFINE_string("name", "", "Name of the result; by default of the data.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Where prepared data sets are kept.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Where downloaded files are.", flag_values=values)
    cli.parse(values, argv, required=("weights", "data", "split"))
    cli.use_compilation_cache()
    model = SingleHDR()
    variables, curves = weights.load(values.weights, template(model))
    folders = {"data_dir": values.data_dir, "manual_dir": values.manual_dir}
    opened = {split: sources.open_source(values.data, split, **folders) for split in values.split}
    made_of = {split: {"records": len(source), "labels": source.label_version} for split, source in opened.items()}
    facts = {"method": "singlehdr", "sha256": sha256(values.weights)}
    translation = Translation(
        name=values.name or "singlehdr_" + "".join(x if x.isalnum() else "_" for x in values.data),
        data_dir=pathlib.Path(sources.prepared_dir(values.data_dir)),
        sources=opened,
        provenance={"made_by": facts, "data": values.data, "splits": made_of},
        condition="night",
    )
    picture = jax.jit(lambda image: jnp.round(255 * enhance(model, variables, curves, image)).astype(jnp.uint8))
    if not translation.is_done():
        translation.begin()
        for split, index in tqdm(list(translation.missing()), unit="image", disable=None):
            image = transforms.decode(opened[split][index], ("image",))["image"]
            translation.write_picture(split, index, np.asarray(picture(image[None]))[0])
    translation.finish()
    print(f"{translation.path} is ready: use it as dataset=translated/{translation.name}")


def template(model: SingleHDR):
    """Shapes of the model's variables."""
    curves = {"g0": jnp.zeros(2), "hinv": jnp.zeros((11, 2))}
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), curves)


if __name__ == "__main__":
    cli.run(main)
