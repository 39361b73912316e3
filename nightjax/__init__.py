"""nightjax: segmentation models that see at night, trained, adapted, evaluated and shipped with JAX."""

__version__ = "0.1.0"
