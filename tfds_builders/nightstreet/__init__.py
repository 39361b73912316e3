"""TFDS builder: NightStreet, drawn rather than downloaded."""
