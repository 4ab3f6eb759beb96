"""What robustsweep itself costs: `python -m benchmarks [NAME...]`; numbers are in docs/performance.md."""
