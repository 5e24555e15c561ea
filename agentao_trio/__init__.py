"""A trio structured-concurrency framework for phone-call agents."""

__version__ = "0.1.0.dev0"
