"""What waiting costs, measured against the peers; `python -m benchmarks` runs all of it (see docs/performance.md)."""
