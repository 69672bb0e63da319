"""Airflow provider for taskbridge: a connection type, a hook, a deferrable operator, a sensor and their trigger."""

from __future__ import annotations

__version__ = "0.1.0"
