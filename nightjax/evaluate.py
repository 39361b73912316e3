"""The one evaluation loop: several named sets, integer counts, one table. Also ``python -m nightjax.evaluate``."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags
from etils import epath

from nightjax import run
from nightjax.core import cli, config as configs, sharding, writers
from nightjax.core.errors import UserError
from nightjax.core.method import Method, Variables
from nightjax.core.types import NUM_CLASSES
from nightjax.data import labels, sources, streams
from nightjax.metrics import confusion, table
from nightjax.ops.resize import resize
from nightjax.ops.windows import slide

GROUPS = {"static": labels.STATIC, "small": labels.SMALL, "dynamic": labels.DYNAMIC}


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """One labelled set and the protocol it is scored by.

    Attributes:
        dataset, split: see `sources.open_source`.
        input_size: (height, width) to which images are resized for the network, their aspect not kept; None keeps the native
            size. Scores are taken at the labels' native size always.
        mode: ``"whole"``, or ``"slide"`` for overlapping windows whose logits are averaged.
        window, stride: of ``"slide"``, (height, width) and (rows, columns).
        merge: key of `labels.CLASS_MERGES` for sets with fewer classes, or ``""``.
        headline: absent-class policy of the number to quote; see `confusion.POLICIES`.
        batch: examples at a time.
    """

    dataset: str
    split: str
    input_size: tuple[int, int] | None = None
    mode: str = "whole"
    window: tuple[int, int] = (1080, 1080)
    stride: tuple[int, int] = (420, 420)
    merge: str = ""
    headline: str = "skip"
    batch: int = 8

    def __post_init__(self):
        configs.choose({"whole": 0, "slide": 0}, self.mode, "eval set's mode")
        configs.choose(dict.fromkeys(confusion.POLICIES), self.headline, "eval set's headline")
        if self.merge:
            configs.choose(labels.CLASS_MERGES, self.merge, "eval set's merge")


class Evaluator:
    """Evaluates a method's network on the sets of a config; compiles once an image shape.

    Opens the sets at once, so that a wrong name is an error before training and not hours into it.
    """

    def __init__(self, config: ml_collections.ConfigDict, method: Method, mesh: jax.sharding.Mesh, workdir: epath.Path):
        self.sets = {
            name: configs.build(EvalSet, section, f"eval.sets.{name}") for name, section in config.eval.sets.items()
        }
        self._data, self._mesh, self._workdir = config.data, mesh, workdir
        self._counts = jax.jit(
            functools.partial(batch_counts, method),
            static_argnames="eval_set",
            out_shardings=sharding.replicated(mesh),
        )
        self._sources = {name: self._open(eval_set) for name, eval_set in self.sets.items()}

    def __call__(
        self, variables: Variables, step: int, writer: writers.Writer | None = None
    ) -> dict[str, dict[str, Any]]:
        """Scores every set, prints the table, writes ``eval/<set>/<step>.json`` and one line of metrics.

        Returns:
            Set name to `confusion.summarise`'s result, with the set's ``dataset`` and ``split``.
        """
        results = {name: self._evaluate(name, eval_set, variables) for name, eval_set in self.sets.items()}
        if jax.process_index() == 0:
            for name, result in results.items():
                folder = self._workdir / "eval" / name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{step:07d}.json").write_text(json.dumps({"step": step} | result, indent=1))
            if writer:
                writer.scalars(step, headlines(results))
            print(table.format_results(results), flush=True)
        return results

    def _evaluate(self, name: str, eval_set: EvalSet, variables: Variables) -> dict[str, Any]:
        total = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
        for batch in streams.make_eval_batches(
            self._sources[name],
            batch_size=-(-eval_set.batch // self._mesh.devices.size) * self._mesh.devices.size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ):
            batch.pop("index")
            counts = self._counts(variables, sharding.put_batch(batch, self._mesh), eval_set=eval_set)
            total = confusion.accumulate(total, sharding.to_host(counts))
        names, groups = labels.CITYSCAPES_CLASSES, GROUPS
        if eval_set.merge:
            merge = labels.CLASS_MERGES[eval_set.merge]
            total, names, groups = merge.merge_confusion(total), merge.classes, {}
        summary = confusion.summarise(total, names, groups, eval_set.headline)
        return {"dataset": eval_set.dataset, "split": eval_set.split} | summary

    def _open(self, eval_set: EvalSet) -> sources.Source:
        source = sources.open_source(
            eval_set.dataset, eval_set.split, data_dir=self._data.dir, manual_dir=self._data.manual_dir
        )
        if len(source) == 0:
            raise UserError(f"eval set {eval_set.dataset}, split {eval_set.split!r}, has no records")
        return source


def batch_counts(
    method: Method, variables: Variables, batch: Mapping[str, jax.Array], eval_set: EvalSet
) -> jax.Array:
    """Confusion counts int32 [K, K] of one batch, at the size of its labels."""
    image, label = batch["image"], batch["label"]
    if eval_set.input_size and eval_set.input_size != image.shape[1:3]:
        resized = resize(image.astype(jnp.float32), eval_set.input_size, align_corners=False)
        image = jnp.round(resized).astype(jnp.uint8)

    def dense_logits(x: jax.Array) -> jax.Array:
        return resize(method.predict(variables, x), x.shape[1:3], align_corners=False)

    if eval_set.mode == "slide":
        logits = slide(dense_logits, image, eval_set.window, eval_set.stride)
    else:
        logits = method.predict(variables, image)
    prediction = resize(logits, label.shape[1:], align_corners=False).argmax(axis=-1).astype(jnp.uint8)
    return confusion.confusion_counts(label, prediction, NUM_CLASSES, mask=batch["mask"])


def headlines(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of every set that go into ``metrics.jsonl``: headline mIoU, pixel accuracy and group means."""
    values = {}
    for name, result in results.items():
        numbers = {"miou": result["miou"][result["headline"]], "pa": result["pa"]} | result["groups"]
        values |= {f"eval/{name}/{key}": value for key, value in numbers.items() if value is not None}
    return values


def main(argv: Sequence[str]) -> None:
    """Evaluates a finished or running run."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("which", "", "student or teacher; by default what the run evaluates.", flag_values=values)
    flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest by default.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Where prepared data sets are kept.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Where downloaded files are.", flag_values=values)
    cli.parse(values, argv, required=("workdir",))
    cli.use_compilation_cache()
    loaded = run.load(values.workdir, values.which, values.step)
    config = ml_collections.ConfigDict(loaded.config.to_dict())
    config.data.dir = values.data_dir or config.data.dir
    config.data.manual_dir = values.manual_dir or config.data.manual_dir
    evaluator = Evaluator(config, loaded.method, loaded.mesh, epath.Path(values.workdir))
    evaluator(loaded.variables, loaded.step)


if __name__ == "__main__":
    cli.run(main)
