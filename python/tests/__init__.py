"""Tests of the package: ``python -m unittest discover -s python -t python`` from the repository's root."""
