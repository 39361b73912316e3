# SPDX-License-Identifier: Apache-2.0
"""Our training step beside the same network's in PyTorch: compares them, then lets them take turns."""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import torch
from gpu_checks import programs, torch_networks
from gpu_checks.network_forms import form_of, optimizer_of

from nightjax.core.errors import UserError
from nightjax.core.method import segments
from nightjax.core.stacks import stacks_of
from nightjax.interop.torch_weights import to_torch
from nightjax.run import settings, start

CHANGES = {"model.head_dropout": 0.0, "model.backbone_drop_path": 0.0, "optim.warmup": 0}
"""Of the configs that have these keys."""

BOUND = 1e-4
"""Largest relative difference at which logits, loss and gradients count as equal."""

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@dataclasses.dataclass
class Peer:
    """PyTorch's side: the network with our first weights, its optimizer and the batch, in one layout of memory."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    image: torch.Tensor
    label: torch.Tensor
    class_weights: torch.Tensor | None
    clip_norm: float

    def gradients(self) -> float:
        """Forward and backward pass, and clipping; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch_networks.loss(self.model(self.image), self.label, self.class_weights)
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        return float(loss.detach())

    def run(self, count: int) -> None:
        """Some whole steps."""
        for _ in range(count):
            self.gradients()
            self.optimizer.step()


def compare(path: str, rounds: int, steps: int) -> list[str]:
    """Lines about one config."""
    program = programs.prepare(path, known(CHANGES, settings.load(path)))
    if program.config.method.name != "supervised" or program.config.model.dtype != "float32":
        raise UserError(f"--config={path}: only supervised training in float32 has a counterpart")
    program.begin()
    batch = program.batch()
    variables = {
        "params": program.state.params["student"],
        "batch_stats": program.state.batch_stats["student"],
    }
    stacks = stacks_of(program.method.network.model)
    weights = {name: value.copy() for name, value in to_torch(jax.device_get(variables), stacks, counters=True).items()}
    logits = np.asarray(jax.jit(segments(program.method).predict)(variables, batch["source"]["image"]))
    peers = {layout: peer(program, batch, weights, form) for layout, form in LAYOUTS.items()}
    differences = check(program, batch, peers["contiguous"], logits, start.count_parameters(variables["params"]))
    runners: dict[str, Callable[[int], Any]] = {"nightjax": lambda count: program.run(batch, count)}
    runners |= {f"torch, {layout}": side.run for layout, side in peers.items()}
    seconds = take_turns(runners, rounds, steps)
    lines = [f"{path}, batch {program.batch_size}: {differences}"]
    for name, found in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds["nightjax"], found, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        ratio = "" if name == "nightjax" else f"   nightjax / this: {median:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"  {name:24}{1000 * statistics.median(found):8.1f} ms{ratio}")
    return lines


def known(changes: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Those of the changes, by dotted key, whose keys the config has."""
    has = lambda section, name: name in config[section]
    return {key: value for key, value in changes.items() if has(*key.split("."))}


def peer(program: programs.Program, batch: Any, weights: dict[str, np.ndarray], layout: torch.memory_format) -> Peer:
    """PyTorch's side of a program."""
    config = program.config
    model = torch_networks.Segmenter(form_of(config), len(program.method.network.classes))
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    model = model.train().to(memory_format=layout)
    image = torch.from_numpy(np.array(program.method.network.input(batch["source"]["image"]))).permute(0, 3, 1, 2)
    label = torch.from_numpy(np.array(batch["source"]["label"], np.int64))
    by_class = program.method.loss.class_weights
    section = optimizer_of(config)
    return Peer(
        model,
        torch_networks.optimizer(model, section),
        image.contiguous(memory_format=layout),
        label,
        torch.tensor(by_class) if by_class else None,
        section["clip_norm"],
    )


def check(program: programs.Program, batch: Any, side: Peer, logits: np.ndarray, parameters: int) -> str:
    """Compares parameters, logits, loss and gradients; takes the first step of ours.

    Raises:
        UserError: they differ, so that times would say nothing.
    """
    count = sum(p.numel() for p in side.model.parameters())
    with torch.no_grad():
        found = side.model.eval()(side.image).permute(0, 2, 3, 1).numpy()
    side.model.train()
    exact = in_float64(side)
    loss = side.gradients()
    theirs = {name: p.grad.numpy() for name, p in side.model.named_parameters()}
    scalars = program.run(batch, 1)
    moments = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(program.state.opt_state["student"])
        if ".mu" in jax.tree_util.keystr(path)
    ]
    ours = gradients_of(program, moments)
    norm = float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in ours.values())))
    apart = lambda one, two: max(np.abs(one[name] - two[name]).max() for name in one) / norm
    differences = {
        "logits": np.abs(found - logits).max() / np.abs(logits).max(),
        "loss": abs(loss - float(scalars["loss"])) / float(scalars["loss"]),
        "gradients": apart(theirs, ours),
    }
    text = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    text += f"; from float64, gradients of torch {apart(theirs, exact):.1e} and of nightjax {apart(ours, exact):.1e}"
    if count != parameters or max(differences.values()) > BOUND:
        raise UserError(f"the networks differ: parameters {parameters:,} and {count:,}; {text}")
    return f"{parameters:,} parameters in both; relative differences: {text}"


def in_float64(side: Peer) -> dict[str, np.ndarray]:
    """PyTorch's clipped gradients of the first step in float64, by name."""
    wide = copy.deepcopy(side)
    wide.model, wide.image = wide.model.double(), wide.image.double()
    wide.class_weights = None if wide.class_weights is None else wide.class_weights.double()
    wide.gradients()
    return {name: p.grad.numpy() for name, p in wide.model.named_parameters()}


def gradients_of(program: programs.Program, moments: list[tuple[Any, Any]]) -> dict[str, np.ndarray]:
    """The clipped gradients of the first step by torch's names, from Adam's first moments after it."""
    tree: dict[str, Any] = {}
    for path, leaf in moments:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        node = tree
        for name in names[1:-1]:  # Without the network's name.
            node = node.setdefault(name, {})
        node[names[-1]] = np.asarray(leaf) / (1 - program.config.optim.b1)
    return to_torch({"params": tree}, stacks_of(program.method.network.model))


def take_turns(runners: dict[str, Callable[[int], Any]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of a step by program, one number a round; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, run in runners.items():
            began = time.perf_counter()
            run(steps)
            seconds[name].append((time.perf_counter() - began) / steps)
    return {name: found[1:] for name, found in seconds.items()}
