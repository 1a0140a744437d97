"""The HTTP service: image pool, labels, cycles, queries. It never loads torch."""

__version__ = "0.1.0"
