"""Names of CycleGAN's and pix2pixHD's official checkpoints, as tables for `interop.official_names`."""

_INDICES = (0, 2, 5, 8, 11)
"""Places of the convolutions of a PatchGAN in the official list of layers."""

PATCHGAN = {f"model.{index}": f"{i}.conv" if i < 4 else f"{i}" for i, index in enumerate(_INDICES)}
"""CycleGAN's discriminators. Its generators have our names."""

MULTISCALE = {
    f"scale{1 - scale}_layer{i}.0": f"cnns.{scale}.{i}" + (".conv" if i < 4 else "")
    for scale in range(2)
    for i in range(5)
}
"""pix2pixHD's two discriminators; the official ones count from the coarsest."""

LOCAL_ENHANCER = {"model": "coarse.model"}
"""pix2pixHD's local generator. Its global one has our names."""
