# SPDX-License-Identifier: Apache-2.0
"""The one evaluation: several named sets, integer counts, one table."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from clu import metrics
from etils import epath

from nightjax.core import class_section, files, sharding, targets, writers
from nightjax.core import config as configs
from nightjax.core.class_merges import CLASS_MERGES, ClassMerge
from nightjax.core.class_weights import class_weights
from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import Absent, UserError
from nightjax.core.method import Segments, Trainable, segments
from nightjax.core.types import IGNORE, Variables
from nightjax.data import sources, streams, transforms
from nightjax.metrics import confusion, protocol, table, uiou
from nightjax.metrics.calibration import summarize_calibration
from nightjax.metrics.counts import evaluation_counts
from nightjax.metrics.image_scores import Chosen, ImageScores
from nightjax.metrics.protocol import EvalSet
from nightjax.run import settings
from nightjax.run.calibration import Calibration
from nightjax.run.loaded import network_of
from nightjax.zoo import benchmarks


class Evaluator:
    """Evaluates a method's network on the sets of a config; compiles once an image shape.

    ``chosen`` holds the worst, the median and the best image of each set, after a call that is not ``brief``.

    Opens the sets at once, so that a wrong name is an error before training and not hours into it. Optional sets whose
    files are not there are named, and left out.

    Args:
        config: ``config.eval`` says which network the variables are of and what to score it on.
        method: of the network.
        mesh: the devices.
        workdir: of the run, which gets the scores; None keeps them out of any file.
        own: the run's own config, where ``config`` asks for something else; see `score_folder`.
        calibrated: the calibration of the network, whose confidences are scored too.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        method: Trainable,
        mesh: jax.sharding.Mesh,
        workdir: epath.Path | None,
        own: ml_collections.ConfigDict | None = None,
        calibrated: Calibration | None = None,
    ):
        self.sets = _build_sets(settings.eval_sections(config))
        own = config if own is None else own
        known = _build_sets(benchmarks.EVAL_SETS | settings.eval_sections(own))
        self._network = network_of(method, config.eval.network)
        network = "" if self._network == network_of(method, own.eval.network) else self._network
        self._folders = {
            name: score_folder(name, eval_set, known.get(name), network) for name, eval_set in self.sets.items()
        }
        for name, eval_set in self.sets.items():
            if eval_set.prediction and eval_set.prediction not in segments(method).predictions:
                raise UserError(
                    f"eval.sets.{name}.prediction={eval_set.prediction!r}: {config.method.name} makes no such "
                    "prediction"
                )
        self._data, self._mesh, self._workdir = config.data, mesh, workdir
        self.classes, self._merges = class_section.of_section(config.classes), config.classes.merges.to_dict()
        scored = segments(method) if self.sets else cast(Segments, method)
        count = functools.partial(batch_outputs, scored, classes=self.classes, calibrated=calibrated)
        self._calibrated = calibrated
        self._counts = jax.jit(
            targets.written_for(targets.of(mesh.devices.flat), count),
            static_argnames="eval_set",
            out_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh)),
        )
        self.chosen: dict[str, Chosen] = {}
        self._earlier: dict[str, list[float]] = {}  # Primary scores by set, of this process.
        self._sources: dict[str, sources.Source] = {}
        for name, eval_set in self.sets.items():
            try:
                self._sources[name] = self._open(eval_set)
            except Absent:
                if not eval_set.optional or name == config.checkpoint.best:
                    raise
        if absent := [name for name in self.sets if name not in self._sources]:
            print(
                f"not evaluated, because their files are not there: {', '.join(absent)}; "
                f"--config.eval.sets.{absent[0]}.optional=false asks for one",
                flush=True,
            )
        self.sets = {name: eval_set for name, eval_set in self.sets.items() if name in self._sources}

    def __call__(
        self, variables: Variables, step: int, writer: writers.Writer | None = None, *, brief: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Scores every set, prints the table, or one line if ``brief``, and writes the scores.

        They go to ``eval/<set>/<step>.json`` (see `score_folder`) and into one line of metrics.

        Returns:
            Set name to `confusion.summarize`'s result, with ``network``, ``dataset``, ``split``,
            ``label_version``, ``protocol`` (what differs from `EvalSet`'s defaults), ``notes`` (what a reader of the
            number should know), ``calibration`` (of `calibration.summarize_calibration`) and, where the protocol asks
            for it, ``uiou``, or ``differing``, the percentage of pixels that the method's own prediction has otherwise.
            Of a calibrated network, ``calibrated`` has the same of corrected confidences, with ``temperature`` and
            ``abstain``: asked precision to what its threshold gives here.
        """
        self.chosen = {}
        results = {name: self._evaluate(name, eval_set, variables, brief) for name, eval_set in self.sets.items()}
        if results and jax.process_index() == 0:
            line = progress_line(step, results, self._earlier)
            print(
                line if brief else table.format_results(results), flush=True
            )  # First, so that a full disk does not take it along.
            if self._workdir is not None:
                self._keep(self._workdir / "eval", step, results)
            if writer:
                writer.scalars(step, primary_scores(results))
                writer.events(step, class_scores(results))
        return results

    def _keep(self, place: epath.Path, step: int, results: Mapping[str, Any]) -> None:
        for name, result in results.items():
            path = place / self._folders[name] / f"{step:07d}.json"
            files.write_whole(path, json.dumps({"step": step} | result, indent=1))
            if self._folders[name] != name:
                print(
                    f"{name} is not the run's own evaluation: kept apart, in {place}/{self._folders[name]}", flush=True
                )

    def _evaluate(self, name: str, eval_set: EvalSet, variables: Variables, brief: bool) -> dict[str, Any]:
        source, sizes = self._sources[name], set()
        images = ImageScores(len(self.classes))
        total: Any = None
        for batch in streams.make_eval_batches(
            source,
            batch_size=-(-eval_set.batch // self._mesh.devices.size) * self._mesh.devices.size,
            fields=("image", "label", "invalid") if eval_set.uiou else ("image", "label"),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ):
            index, label = batch.pop("index"), batch["label"]
            sizes.add(label.shape[1:])
            counts, prediction = self._counts(variables, sharding.put_batch(batch, self._mesh), eval_set=eval_set)
            counts = sharding.to_host(counts)
            total = counts if total is None else total.merge(counts)
            if not brief:
                images.add(index, label, sharding.local_rows(prediction))
        shown = {}
        if len(images):
            self.chosen[name] = chosen = images.chosen()
            shown = {"images": {"count": chosen.count, "miou": chosen.miou}}
        return (
            shown
            | {
                "network": self._network,
                "dataset": eval_set.dataset,
                "split": eval_set.split,
                "label_version": source.label_version,
                "protocol": eval_set.changes,
                "notes": _notes(eval_set, sizes, self._data.streams),
            }
            | summarize(total, eval_set, self.classes, self._calibrated)
        )

    def panels(self) -> dict[str, dict[str, list[np.ndarray]]]:
        """Set to its `chosen` images in columns: image, truth, prediction, and the wrong pixels in red."""
        found = {}
        for name, chosen in self.chosen.items():
            columns: dict[str, list[np.ndarray]] = {"image": [], "truth": [], "prediction": [], "error": []}
            for which, index in chosen.index.items():
                example = transforms.decode(self._sources[name][index], ("image", "label"))
                shown = example["image"], example["label"], chosen.prediction[which]
                for column, values in zip(columns.values(), (*shown, _errors(*shown)), strict=True):
                    column.append(values)
            found[name] = columns
        return found

    def _open(self, eval_set: EvalSet) -> sources.Source:
        source = sources.open_source(
            eval_set.dataset,
            eval_set.split,
            data_dir=self._data.dir,
            manual_dir=self._data.manual_dir,
            classes=self.classes,
            merges=self._merges,
        )
        if len(source) == 0:
            raise UserError(f"eval set {eval_set.dataset}, split {eval_set.split!r}, has no records")
        if eval_set.uiou and "invalid" not in source[0]:
            raise UserError(
                f"eval set {eval_set.dataset}, split {eval_set.split!r}, has no invalid masks: set uiou=False"
            )
        return source


def _errors(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image darkened, pixels with another class than the true one red, uint8 [H, W, 3]."""
    shown = image // 3
    shown[(label != prediction) & (label != IGNORE)] = (230, 60, 50)
    return shown


def score_folder(name: str, eval_set: EvalSet, known: EvalSet | None, network: str = "") -> str:
    """The folder under ``eval/`` for the scores of a set: what is not the run's own never replaces what is.

    It is the set's name where that means this set. Another set under the name, such as the same split of another size
    of NightStreet, has its data set in front, and the scores of a network that the run does not evaluate have the
    network's: ``teacher.nightstreet_large.test_night``.

    Args:
        name: of the set.
        eval_set: its protocol.
        known: what the name means: the run's own set, or where it has none that of `benchmarks.EVAL_SETS`, or nothing.
        network: ``"student"`` or ``"teacher"`` if the run evaluates the other one.
    """
    own = {"batch": eval_set.batch, "optional": eval_set.optional}
    same = known is not None and dataclasses.replace(known, **own) == eval_set
    return ".".join(filter(None, [network, "" if same else re.sub(r"\W+", "_", eval_set.dataset), name]))


def _build_sets(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, EvalSet]:
    return {name: configs.build(EvalSet, section, f"eval.sets.{name}") for name, section in sections.items()}


def batch_outputs(
    method: Segments,
    variables: Variables,
    batch: Mapping[str, jax.Array],
    eval_set: EvalSet,
    classes: ClassSet = CITYSCAPES,
    calibrated: Calibration | None = None,
) -> tuple[metrics.Collection, jax.Array]:
    """Counts of one batch at the size of its labels, see `evaluation_counts`, and the predicted train ids, uint8 [B, H,
    W]; traceable."""
    label, mask = batch["label"], batch["mask"]
    weights = logit_weights(eval_set, classes)
    temperatures = (1.0,) if calibrated is None else (1.0, calibrated.temperature)
    predict = lambda fn: protocol.predict(fn, batch["image"], eval_set, label.shape[1:], weights, temperatures)
    own = functools.partial(method.predict, variables)
    other = lambda image: method.predict_as(eval_set.prediction, variables, image, label)
    prediction, confidence, *corrected = predict(other if eval_set.prediction else own)
    outputs: dict[str, Any] = {"label": label, "prediction": prediction, "confidence": confidence, "mask": mask}
    if merge := merge_of(eval_set, classes):
        outputs["merge_table"] = merge.table
    if eval_set.prediction:
        outputs["other_prediction"] = predict(own)[0]
    if eval_set.uiou:
        outputs |= {"invalid": batch["invalid"] > 0, "thresholds": thresholds(classes)}
    if calibrated is not None:
        outputs |= {"calibrated_confidence": corrected[0], "fitted_thresholds": calibrated.ascending}
    kinds = evaluation_counts(
        uiou=eval_set.uiou, differing=bool(eval_set.prediction), calibrated=calibrated is not None
    )
    counts = kinds.single_from_model_output(num_classes=len(classes), **outputs)
    return counts, prediction.astype(jnp.uint8)


def thresholds(classes: ClassSet) -> np.ndarray:
    """Confidences below which pixels are declined, for UIoU, float32 [T]."""
    return uiou.default_thresholds(len(classes))


def merge_of(eval_set: EvalSet, classes: ClassSet) -> ClassMerge | None:
    """The merge that a set is scored by; a merge is of Cityscapes' classes and of no others."""
    return CLASS_MERGES[eval_set.merge] if eval_set.merge and classes.same_classes(CITYSCAPES) else None


def logit_weights(eval_set: EvalSet, classes: ClassSet = CITYSCAPES) -> np.ndarray | None:
    """DANNet's class weights of a protocol, float64 [K], or None."""
    std = eval_set.class_weight_std
    if std and not classes.pixel_share:
        raise UserError(f"eval set {eval_set.dataset}: class_weight_std={std} needs classes.pixel_share")
    return class_weights(classes.pixel_share, std) if std else None


def summarize(
    counts: Any, eval_set: EvalSet, classes: ClassSet, calibrated: Calibration | None = None
) -> dict[str, Any]:
    """All scores of one set from its merged counts, see `batch_outputs`."""
    total, names, groups = counts.confusion.total, classes.names, classes.scored_groups
    if merge := merge_of(eval_set, classes):
        total, names, groups = merge.merge_confusion(total), merge.classes, {}
    summary = confusion.summarize(total, names, groups, eval_set.absent_classes)
    summary["confusion"] = np.asarray(total)[: len(names), : len(names)].tolist()
    summary["calibration"] = summarize_calibration(counts.reliability.total)
    if calibrated is not None:
        summary["calibrated"] = calibrated.summarize(counts, names, eval_set.uiou)
    if eval_set.prediction:
        summary |= {"differing": 100 * int(counts.differing.total) / max(summary["pixels"], 1)}
    if eval_set.uiou:
        summary |= {"uiou": uiou.summarize_uiou(counts.uiou.total, thresholds(classes), names)}
    return summary


def _notes(eval_set: EvalSet, sizes: set[tuple[int, int]], training: Mapping[str, Any]) -> list[str]:
    """What makes a number less comparable than it looks."""
    notes = []
    if eval_set.native_size and (others := sorted(sizes - {eval_set.native_size})):
        notes.append(
            f"labels of {others[0][0]}x{others[0][1]}, the protocol scores {'x'.join(map(str, eval_set.native_size))}"
        )
    doubtful = benchmarks.OVERLAPS.get(eval_set.dataset.partition(":")[0], ())
    for name, stream in training.items():
        if any(dataset.strip().startswith(doubtful) for dataset in sources.parts_of(stream["dataset"])):
            notes.append(f"the run's {name} stream, {stream['dataset']}, has frames of the same drives")
    return notes


def class_scores(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The IoU of every class of every set, for the events."""
    return {
        f"eval/{name}/iou/{one}": value
        for name, result in results.items()
        for one, value in result["iou"].items()
        if value is not None
    }


def primary_scores(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of every set that go into ``metrics.jsonl``: primary mIoU, pixel accuracy and group means."""
    values = {}
    for name, result in results.items():
        numbers = {"miou": result["miou"][result["primary"]], "pa": result["pa"]} | result["groups"]
        if "uiou" in result:
            numbers["uiou"] = result["uiou"]["average"]
        values |= {f"eval/{name}/{key}": value for key, value in numbers.items() if value is not None}
    return values


def progress_line(step: int, results: Mapping[str, Mapping[str, Any]], earlier: dict[str, list[float]]) -> str:
    """Every set's primary mIoU, with its change since the evaluation before, and whether it is the best so far.

    Args:
        step: of the evaluation.
        results: set name to its scores.
        earlier: set name to the primary mIoU of the evaluations before; those of this one are appended.
    """
    words = []
    for name, result in results.items():
        score, before = result["miou"][result["primary"]], earlier.setdefault(name, [])
        if score is None:
            continue
        best = ", best" if before and score > max(before) else ""
        words.append(f"{name} {score:.1f}" + (f" ({score - before[-1]:+.1f}{best})" if before else ""))
        before.append(score)
    return "  ".join([f"step {step}: mIoU", *words])
