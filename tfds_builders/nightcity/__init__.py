"""TFDS builder: NightCity."""
