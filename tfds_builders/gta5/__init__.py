"""TFDS builder: GTA5."""
