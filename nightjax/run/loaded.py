# SPDX-License-Identifier: Apache-2.0
"""A trained run on disk: its config, its method, its weights."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from etils import epath
from jax.sharding import Mesh

from nightjax import methods
from nightjax.core import checkpoint, class_section, files, sharding, targets
from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import UserError
from nightjax.core.method import Trainable, segments
from nightjax.core.partition import BASE
from nightjax.core.types import Variables
from nightjax.models.adapters import has_adapters, merged
from nightjax.run import base, settings, start

REQUIRED = {"seed", "model", "train", "data", "eval", "method", "optim"}
"""Sections of every run's config."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained network, ready to use.

    Attributes:
        config: of the run.
        method: built from it.
        variables: the network's weights, replicated on the mesh.
        mesh: the devices.
        step: of the checkpoint.
        workdir: where it comes from.
        network: which of the method's networks this is.
    """

    config: ml_collections.ConfigDict
    method: Trainable
    variables: Variables
    mesh: Mesh
    step: int
    workdir: epath.Path
    network: str

    @functools.cached_property
    def classes(self) -> ClassSet:
        """The classes that the network tells apart."""
        return class_section.of_section(self.config.classes)

    @functools.cached_property
    def predict_fn(self) -> jax.tree_util.Partial:
        """uint8 [B, H, W, 3] to logits [B, h, w, K]."""
        return jax.tree_util.Partial(self.written(segments(self.method).predict), self.variables)

    def merged(self) -> "Run":
        """The same network without adapters: their products are added to the weights beside them."""
        if not has_adapters(self.variables["params"]):
            return self
        config = ml_collections.ConfigDict(self.config.to_dict())
        alpha = config.model.backbone_lora_alpha
        config.model.backbone_lora_rank, config.optim.groups = 0, ()
        variables = self.variables | {"params": jax.jit(merged, static_argnums=1)(self.variables["params"], alpha)}
        return dataclasses.replace(self, config=config.lock(), method=methods.build(config), variables=variables)

    def written(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, traced with the forms of the run's devices; see `core.targets`."""
        return targets.written_for(targets.of(self.mesh.devices.flat), function)

    def facts(self) -> dict[str, Any]:
        """Which network this is, for files that it makes; ``weights`` is the same for the same weights only."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(sharding.to_host(self.variables)):
            digest.update(leaf.tobytes())
        return {
            "run": str(self.workdir),
            "network": self.network,
            "step": self.step,
            "weights": digest.hexdigest()[:16],
        }


def read_config(workdir: epath.PathLike) -> ml_collections.ConfigDict:
    """The config a workdir was started with, complete.

    Raises:
        UserError: the folder holds no run, or one of an earlier version.
    """
    config = settings.saved(workdir)
    if "classes" not in config:  # A run of a version that knew no other classes.
        config = ml_collections.ConfigDict(config.to_dict() | {"classes": class_section.section_of(CITYSCAPES)})
    if missing := REQUIRED - set(config):
        path = epath.Path(workdir) / settings.CONFIG
        raise UserError(f"{path} is damaged (it has no {sorted(missing)[0]!r}); restore it or start the run again")
    try:
        return settings.complete(config)
    except UserError as error:
        raise UserError(f"{epath.Path(workdir) / settings.CONFIG}: {error}") from error


def load(workdir: epath.PathLike, network: str = "", step: int | str | None = None) -> Run:
    """Loads a trained network.

    Args:
        workdir: of the run.
        network: ``"student"`` or ``"teacher"``; by default what the config evaluates.
        step: of the checkpoint, "best", or "last_good"; the newest by default.

    Raises:
        UserError: no run, no checkpoint, or no such network.
    """
    files.check_answers(workdir)
    config = settings.override(read_config(workdir), {"train.shard": "none"})
    method = methods.build(config)
    mesh = sharding.make_mesh(jax.devices()[: config.train.devices or None])
    abstract = start.abstract_state(config, method, mesh)
    network = network_of(method, network or config.eval.network)
    folder = checkpoint.latest_folder(workdir, step)
    fields = ("teacher",) if network == "teacher" else ("params", "batch_stats")
    part = {field: getattr(abstract, field) for field in fields if getattr(abstract, field)}
    apart = base.is_apart(config, abstract)
    if BASE in abstract.frozen and not apart:
        part["frozen"] = {BASE: abstract.frozen[BASE]}
    state = abstract.replace(**checkpoint.restore_part(folder, part))
    if apart:
        state = state.replace(frozen={BASE: start.load_base(folder.parent.parent, config, method, mesh)})
    variables = method.variables(state, network)
    return Run(config, method, variables, mesh, int(folder.name), epath.Path(workdir), network)


def network_of(method: Trainable, network: str) -> str:
    """The network to evaluate, the method's default one for ``""``.

    Raises:
        UserError: the method has no such network.
    """
    if network and network not in method.networks:
        raise UserError(f"the method has no network {network!r}; choose {' or '.join(method.networks)}")
    return network or method.networks[0]
