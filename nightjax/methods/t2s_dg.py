"""T2S-DA without any target: domain generalisation (arXiv 2305.13752; the recipe is ours, spec D13).

The source is stylised at random instead of translated, nothing is mixed, and all negatives are source features. The
teacher's confidence is read from the stylised images.
"""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.methods.dacs import Terms
from nightjax.methods.network import Photometric
from nightjax.methods.pulling import Pulling
from nightjax.methods.t2s_da import Examples, PyTree, T2sDa
from nightjax.ops.fourier import adapt_within

JITTER = Photometric(jitter_probability=1.0, blur_probability=0.0)


@dataclasses.dataclass(frozen=True)
class T2sDg(T2sDa):
    """Domain generalisation from the source alone; no batch of it holds a target.

    The fields are those of `T2sDa`, and those of `Dacs` about target and mixing have no effect. ``translation="style"``
    needs the randomiser's published weights; ``"fda"``, the fallback without them, takes the low-frequency amplitude of
    another source image of the batch and jitters the colours.
    """

    pull: Pulling = Pulling(negatives_from="source")

    streams = ("source",)

    def __post_init__(self):
        super().__post_init__()
        wrong = {
            "method.pull.negatives_from": self.pull.negatives_from != "source",
            "method.pull.ring": self.pull.ring,
            "method.real_target_queries": self.real_target_queries,
        }
        for name in filter(wrong.get, wrong):
            raise UserError(f"{name} asks for target features, and t2s_dg sees no target: leave it out, or use t2s_da")

    def prepare(self, state: TrainState, teacher: Variables, batch: Batch) -> tuple[Examples, TrainState, Scalars]:
        """Stylised images, and the teacher's keys of the source."""
        source = self.input.decode(batch["source"]["image"])
        examples = {"source": source, "source_label": batch["source"]["label"]}
        if self.source_photometric is not None:
            examples["source"] = self.source_photometric(source, self.key(state, "source_photometric"))
        seen = source
        if self.translates:
            seen = examples["translated"] = self.translate(state, source)
        outputs, stats = self.teacher_forward(state, teacher, seen, self.context_only())
        state = state.replace(teacher=teacher | {"batch_stats": stats})
        keys, state, scalars = self.remember(state, source, batch["source"]["label"], outputs)
        return examples | keys, state, scalars

    def translate(self, state: TrainState, source: jax.Array) -> jax.Array:
        """Each image [B, H, W, 3] in the look of something else; float32 in [0, 1]."""
        if self.translation == "style":
            return self.stylise(state, source)
        mixed = adapt_within(source, self.key(state, "other"), self.fda_beta)
        return JITTER(mixed, self.key(state, "jitter"))

    def losses(self, state: TrainState, params: PyTree, stats: PyTree, part: dict, i) -> tuple[Terms, PyTree]:
        """Cross-entropy on the source, feature distance and pulling loss."""
        source, terms, stats = self.source_losses(state, params, stats, part, i)
        more, stats = self.translated_losses(state, params, stats, part, i, source)
        return terms | more, stats

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        image = batch["source"]["image"]
        pictures = {"source": image, "truth": batch["source"]["label"]}
        if self.translates:
            pictures["translated"] = self.translate(state, self.input.decode(image))
        prediction = self.predict(self.variables(state), image).argmax(-1).astype(jnp.uint8)
        return pictures | {"prediction": prediction}
