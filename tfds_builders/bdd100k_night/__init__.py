"""TFDS builder: BDD100K-night."""
