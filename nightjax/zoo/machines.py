# SPDX-License-Identifier: Apache-2.0
"""Accelerators that a run can be planned for, as data, and how to have a compiler for one that is not here.

A target is written ``v5e:4x4`` (a TPU slice by its topology), ``h200`` or ``h200:8`` (GPUs of one host) or ``cpu``.
Figures are those of the vendors' data sheets: Google Cloud's pages of TPU versions, NVIDIA's data sheets, all dense.
"""

import dataclasses
import os
import re
from collections.abc import Sequence

import jax

from nightjax.core.errors import UserError, choose, first_line

GB = 1e9


@dataclasses.dataclass(frozen=True)
class Machine:
    """One kind of accelerator; figures are for one chip.

    Attributes:
        title: how people call it.
        platform: of jax: ``"tpu"``, ``"cuda"`` or ``"cpu"``.
        memory: bytes that a program can use; 0 if unknown.
        bfloat16, float32: floating-point operations a second of matrix products; on GPUs float32 means TF32. 0 if
            unknown.
        bandwidth: bytes a second from and to memory; 0 if unknown.
        link: bytes a second from one chip to the others; 0 if unknown.
        about: of a GPU, what its compiler has to know.
    """

    title: str
    platform: str
    memory: float = 0.0
    bfloat16: float = 0.0
    float32: float = 0.0
    bandwidth: float = 0.0
    link: float = 0.0
    about: "Gpu | None" = None


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What XLA's compiler has to know of a GPU.

    Attributes:
        capability: compute capability, such as (9, 0).
        cores: streaming multiprocessors.
        clock: GHz, boosted.
        cache: bytes of the second-level cache.
        shared: bytes of shared memory of a multiprocessor.
        shared_block: bytes of it that one block can ask for.
        threads: of a multiprocessor.
    """

    capability: tuple[int, int]
    cores: int
    clock: float
    cache: int
    shared: int
    shared_block: int
    threads: int


_HOPPER = Gpu((9, 0), 132, 1.98, 50 << 20, 228 << 10, 227 << 10, 2048)

MACHINES = {
    "v4": Machine("TPU v4", "tpu", 32 * GB, 275e12, 0, 1228 * GB, 300 * GB),
    "v5e": Machine("TPU v5e", "tpu", 16 * GB, 197e12, 0, 819 * GB, 200 * GB),
    "v5p": Machine("TPU v5p", "tpu", 95 * GB, 459e12, 0, 2765 * GB, 600 * GB),
    "v6e": Machine("TPU v6e", "tpu", 32 * GB, 918e12, 0, 1640 * GB, 448 * GB),
    "h200": Machine("NVIDIA H200", "cuda", 141 * GB, 989e12, 495e12, 4800 * GB, 450 * GB, _HOPPER),
    "h100": Machine("NVIDIA H100 SXM", "cuda", 80 * GB, 989e12, 495e12, 3350 * GB, 450 * GB, _HOPPER),
    "a100-80": Machine(
        "NVIDIA A100 80 GB",
        "cuda",
        80 * GB,
        312e12,
        156e12,
        2039 * GB,
        300 * GB,
        Gpu((8, 0), 108, 1.41, 40 << 20, 164 << 10, 163 << 10, 2048),
    ),
    "l4": Machine(
        "NVIDIA L4",
        "cuda",
        24 * GB,
        121e12,
        60e12,
        300 * GB,
        32 * GB,
        Gpu((8, 9), 58, 2.04, 48 << 20, 100 << 10, 99 << 10, 1536),
    ),
    "rtx4090": Machine(
        "NVIDIA RTX 4090",
        "cuda",
        24 * GB,
        165e12,
        83e12,
        1008 * GB,
        32 * GB,
        Gpu((8, 9), 128, 2.52, 72 << 20, 100 << 10, 99 << 10, 1536),
    ),
    "cpu": Machine("this machine's CPU", "cpu"),
}
"""Name of an accelerator to its figures."""


def compile_only(target: str) -> tuple[Machine, Sequence[jax.Device]]:  # pyright: ignore[reportInvalidTypeForm]
    """The machine of a target, and devices that programs can be compiled for but not run on.

    Args:
        target: see the module's docstring. Only this machine's CPU is really there.

    Raises:
        UserError: no such target, or its compiler is not installed.
    """
    name, _, size = target.partition(":")
    machine = choose(MACHINES, name, "target")
    if machine.platform == "cpu":
        if size:
            raise UserError(f"target {target!r}: cpu has no size")
        return machine, jax.devices("cpu")[:1]
    pattern = r"\d+x\d+(x\d+)?" if machine.platform == "tpu" else r"[1-9]\d*|"
    if not re.fullmatch(pattern, size):
        example = f"{name}:2x2" if machine.platform == "tpu" else f"{name} or {name}:8"
        raise UserError(f"target {target!r} is no size of {machine.title}; write it as {example}")
    from jax.experimental import topologies

    try:
        if machine.platform == "tpu":
            _prepare_libtpu()
            return machine, topologies.get_topology_desc(platform="tpu", topology_name=target).devices
        options = {"target_config": _gpu_text(machine), "topology": f"1x1x{size or 1}"}
        return machine, topologies.get_topology_desc(platform="cuda", **options).devices
    except Exception as error:  # What a compiler that is missing or refuses raises is not documented.
        extra = "tpu" if machine.platform == "tpu" else "cuda13"
        raise UserError(
            f"no compiler for {target} here ({first_line(error)}); pip install 'nightjax[{extra}]' brings it and needs "
            "no such device; check that the size exists"
        ) from error


def _prepare_libtpu() -> None:
    """Keeps libtpu from asking a cloud's servers who it is, and lets two processes compile at once.

    Its lock is for processes that share the chips of one machine; a compiler uses none.
    """
    for key, value in {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(key, value)


def _gpu_text(machine: Machine) -> str:
    """XLA's GpuTargetConfigProto as text."""
    gpu = machine.about
    assert gpu is not None
    major, minor = gpu.capability
    return f"""gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: {gpu.threads}
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared}
  shared_memory_per_block_optin: {gpu.shared_block}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: {gpu.cores}
  fpus_per_core: {64 if gpu.capability == (8, 0) else 128}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(machine.bandwidth)}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {int(machine.memory)}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 2 }}
device_description_str: "{machine.title}"
"""
