"""TFDS builder: Cityscapes."""
