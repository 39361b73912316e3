"""Training iterations of DANNet against the official program.

Losses to 1e-5 relative; final parameters and running statistics to 2e-5 (relighting) and 2e-6.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.class_weights import class_weights
from nightjax.core.classes import CITYSCAPES
from nightjax.core.optim import Group, Optimizer
from nightjax.core.step import Training
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses.adversarial import SOURCE, TARGET, least_squares
from nightjax.methods.dannet import AdversarialLoss, Dannet, StaticLoss
from nightjax.methods.parts.discriminators import DiscriminatorForm, Discriminators
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.models.backbones.resnet import Bottleneck
from nightjax.models.heads.deeplab import DeepLabV2Head
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.models.relight import RelightNet
from nightjax.models.segmenter import SegmentationModel
from tests.helpers.golden import number, same_value, state_of

DOMAINS = ("day", "night", "source")
NETWORKS = {"D1": "day", "D2": "night"}
ATOL = {"light": 2e-5, "seg": 2e-6, "D1": 2e-6, "D2": 2e-6}


class SmallDeepLab(SegmentationModel):
    """Relighting, stem, one bottleneck and the official classifier, as in the golden README."""

    stem: int
    width: int
    classes: int
    relight: nn.Module

    @nn.compact
    def __call__(self, x, *, train=False, deterministic=None):
        residual = self.relight(x, train=train)
        x = Conv(self.stem, stride=2, name="conv1")(x + residual)
        x = nn.relu(BatchNorm(name="bn1")(x, train=train))
        x = Bottleneck(self.width, dilation=2, style="caffe", name="block")(x, train)
        logits = DeepLabV2Head(self.classes, summed=2, name="cls")({"stage4": x})
        return {"logits": logits, "residual": residual}


@dataclasses.dataclass(frozen=True)
class TermByTerm(Discriminators):
    """Logs what each discriminator loses on either of its two domains, without the factor 1/2."""

    def losses(self, names):
        whole = super().losses(names)["discriminators"]

        def loss(params, stats, part, i):
            total, outcome = whole(params, stats, part, i)
            terms = {}
            for name in names:
                for domain, wanted in (("source", SOURCE), ("target", TARGET)):
                    scores = self.scores(params[name], part[f"{domain}_output_{name}"])
                    terms[f"{domain}_{name}"] = least_squares(scores, wanted)
            return total, outcome._replace(scalars=outcome.scalars | terms)

        return {"discriminators": loss}


@pytest.fixture(scope="module")
def file(golden):
    return golden("dannet", "train_step")


def iterations(file):
    return sum(name.startswith("it") and name.endswith(".night") for name in file)


def batch(file, i):
    image = {name: jnp.asarray(file[f"it{i}.{name}"]) for name in DOMAINS}
    return {
        "source": {"image": image["source"], "label": jnp.asarray(file[f"it{i}.label"])},
        "target": {"image": image["night"], "reference": image["day"]},
    }


def method(file, share, neighborhood):
    lr, lr_d, momentum, decay, power = (float(v) for v in file["hyper_lr_g_lr_d_momentum_wd_power"])
    poly = {"schedule": "mmseg_poly", "power": power}
    frozen = r"^block/bn\d/(scale|bias)$|^cls/conv2d_list_[23]/"
    size = number(file["input_size_target"])
    width, stem = file["init.seg.block.conv1.weight"].shape[:2]
    classes = len(file["init.seg.cls.conv2d_list.0.bias"])
    blocks = sum(name.startswith("init.light.") and name.endswith(".conv_block.1.weight") for name in file)
    relight = RelightNet(len(file["init.light.model.2.weight"]), blocks)
    discriminators = TermByTerm(
        DiscriminatorForm(len(file["init.D1.conv1.bias"])),
        Optimizer(name="adam", lr=lr_d, b2=0.99, weight_decay=0.0, **poly),
    )
    weights = tuple(class_weights(share, 0.05))
    return Dannet(
        SegmentationNetwork(SmallDeepLab(stem, width, classes, relight)),
        Optimizer(
            name="sgd",
            lr=lr,
            momentum=momentum,
            weight_decay=decay,
            decay_vectors=True,
            groups=(Group(frozen, lr=0.0),),
            **poly,
        ),
        Training(number(file["num_steps"])),
        class_weights=weights,
        target_size=(size, size),
        adversarial=AdversarialLoss(discriminators=discriminators),
        static=StaticLoss(class_weights=weights, neighborhood=neighborhood),
    )


def first_state(method, file):
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch(file, 0))

    def fill(name, tree):
        return from_torch(state_of(file, f"init.{name}."), tree)

    def without_relighting(tree):
        return {k: v for k, v in tree.items() if k != "relight"}

    student, stats = shapes.params["student"], shapes.batch_stats["student"]
    seg = fill("seg", {"params": without_relighting(student), "batch_stats": without_relighting(stats)})
    light = fill("light", {"params": student["relight"], "batch_stats": stats["relight"]})
    params = {"student": seg["params"] | {"relight": light["params"]}}
    for official, name in NETWORKS.items():
        params[name] = fill(official, {"params": shapes.params[name]})["params"]
    opt_state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.opt_state)
    return shapes.replace(
        step=jnp.int32(0),
        params=params,
        batch_stats={"student": seg["batch_stats"] | {"relight": light["batch_stats"]}},
        opt_state=opt_state,
    )


def networks(state):
    """Official names to arrays, for each network."""
    variables = {"params": state.params["student"], "batch_stats": state.batch_stats["student"]}
    light = {kind: tree["relight"] for kind, tree in variables.items()}
    seg = {kind: {k: v for k, v in tree.items() if k != "relight"} for kind, tree in variables.items()}
    critics = {k: to_torch({"params": state.params[v]}) for k, v in NETWORKS.items()}
    return {"seg": to_torch(seg), "light": to_torch(light), **critics}


def check_losses(file, prefix, i, scalars):
    def same(actual, name, index):
        expected = file[f"{prefix}.{name}"].reshape(iterations(file), -1)[i][index]
        same_value(actual, expected, name=f"{name} {index}")

    for index, domain in enumerate(DOMAINS):
        for official, name in (("tv", "tv"), ("ssim", "ssim"), ("exp", "exposure")):
            same(scalars[f"{name}_{domain}"], official, index)
    same(scalars["segmentation"], "ce", 0)
    same(scalars["static"], "static", 0)
    for index, domain in enumerate(("day", "night")):
        same(scalars[f"adversarial_{domain}"], "mse", index)
        same(scalars[f"source_{domain}"], "mse", 2 + index)
        same(scalars[f"target_{domain}"], "mse", 4 + index)
        half = 0.5 * (scalars[f"source_{domain}"] + scalars[f"target_{domain}"])
        np.testing.assert_allclose(scalars[f"discriminator_{domain}"], half, rtol=1e-5)


@pytest.mark.parametrize("neighborhood", ["code", pytest.param("center", marks=pytest.mark.slow)])
def test_iterations(file, neighborhood):
    share = np.array(CITYSCAPES.pixel_share)
    official = method(file, share, neighborhood)
    state = first_state(official, file)
    step = jax.jit(official.train_step)
    prefix = {"code": "loss", "center": "loss_center_variant"}[neighborhood]
    assert iterations(file)
    for i in range(iterations(file)):
        state, scalars = step(state, batch(file, i))
        check_losses(file, prefix, i, scalars)
    final = {"code": "final", "center": "final_center_variant"}[neighborhood]
    for name, actual in networks(state).items():
        expected = state_of(file, f"init.{name}.") if neighborhood == "code" else {}
        expected |= state_of(file, f"{final}.{name}.")
        for key, value in expected.items():
            np.testing.assert_allclose(actual[key], value, rtol=0, atol=ATOL[name], err_msg=f"{name}.{key}")
        frozen = [k for k in expected if "conv2d_list.2" in k or k.endswith("block.bn1.weight")]
        for key in frozen:
            np.testing.assert_array_equal(actual[key], expected[key])
