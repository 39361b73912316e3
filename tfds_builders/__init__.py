"""TFDS builders, one package a data set."""
