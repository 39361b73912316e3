# SPDX-License-Identifier: Apache-2.0
"""The same network, weights, batch, loss and optimizer in PyTorch, eager and compiled, checked equal first."""

import json
import pathlib
import time
from collections.abc import Callable

import numpy as np
import torch
from gpu_checks import common, torch_networks
from gpu_checks.common import Check

LOGITS_BOUND = 1e-3
"""Largest difference of logits in float32, relative to the largest logit, at which the networks count as equal."""


def torch_part(check: Check) -> None:
    """One row for each batch size and each way to run the step."""
    for file in sorted(check.work.glob("peer-*.npz"), key=lambda file: int(file.stem.split("-")[1])):
        with check.attempt("torch", file.stem):
            one_batch(check, file)


def one_batch(check: Check, file: pathlib.Path) -> None:
    """Checks the network against ours, then times it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts, arrays = json.loads(file.with_suffix(".json").read_text()), dict(np.load(file))
    image = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2).to(device)  # Channels last, as it lies there.
    label = torch.from_numpy(arrays["label"].astype(np.int64)).to(device)
    model = torch_networks.Segmenter(facts["form"], facts["classes"])
    weights = {name.removeprefix("weights/"): value for name, value in arrays.items() if name.startswith("weights/")}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    model = model.to(device, memory_format=torch.channels_last)
    count = sum(p.numel() for p in model.parameters())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        logits = model.eval()(image[:2]).permute(0, 2, 3, 1).cpu().numpy()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    difference = float(np.abs(logits - arrays["logits"]).max() / np.abs(arrays["logits"]).max())
    model.train()
    optimizer = torch_networks.optimizer(model, facts["optim"])
    loss = gradient(model, image, label, device, facts["dtype"])
    norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in model.parameters()])))
    ours = facts["scalars"]
    equal = difference <= LOGITS_BOUND and count == facts["parameters"]
    check.row(
        "equal",
        batch=len(image),
        parameters=facts["parameters"],
        parameters_torch=count,
        logits=difference,
        loss=ours["loss"],
        loss_torch=loss,
        gradient_norm=ours["gradient_norm"],
        gradient_norm_torch=norm,
        equal=equal,
    )
    if not equal:
        raise ValueError("the networks differ, so their times say nothing")
    ways = {
        "eager, channels last": lambda: model,
        "torch.compile": lambda: torch.compile(model),
        "torch.compile, CUDA graphs": lambda: torch.compile(model, mode="reduce-overhead"),
    }
    for how, made in ways.items():
        if "graphs" in how and (device == "cpu" or check.left() < 30):
            continue
        with check.attempt("torch", f"{how}, batch {len(image)}"):
            forward = made()
            step = lambda forward=forward: one_step(forward, model, optimizer, image, label, device, facts["dtype"])
            time_step(check, how, step, image, facts)


def gradient(forward: Callable, image: torch.Tensor, label: torch.Tensor, device: str, dtype: str) -> float:
    """Forward and backward pass; the loss."""
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
        logits = forward(image)
    loss = torch_networks.loss(logits, label)
    loss.backward()
    return float(loss.detach())


def one_step(forward, model, optimizer, image, label, device: str, dtype: str) -> None:
    """Forward, loss, backward, AdamW; nothing waits for the device."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
        logits = forward(image)
    torch_networks.loss(logits, label).backward()
    optimizer.step()


def time_step(check: Check, how: str, step: Callable[[], None], image: torch.Tensor, facts: dict) -> None:
    """One row."""
    cuda = image.device.type == "cuda"

    def run(count: int) -> None:
        for _ in range(count):
            step()
        if cuda:
            torch.cuda.synchronize()

    began = time.perf_counter()
    run(1)
    first = time.perf_counter() - began
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    timing = common.timed(run, 4.0)
    rate, peak = facts["flops"] / timing.median, facts["peak"]
    check.row(
        "peer",
        framework=f"torch {torch.__version__}, {how}",
        batch=len(image),
        **timing.milliseconds(),
        images_per_s=round(len(image) / timing.median, 1),
        tflops=round(rate / 1e12, 1),
        mfu=round(rate / peak, 3) if peak else None,
        memory_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
        compile_s=round(first, 1),
    )
