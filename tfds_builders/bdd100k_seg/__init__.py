"""TFDS builder: BDD100K semantic segmentation."""
