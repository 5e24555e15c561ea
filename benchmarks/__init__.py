"""Measurements of the package: ``python -m benchmarks``. Method and machine are in the README beside this file."""
