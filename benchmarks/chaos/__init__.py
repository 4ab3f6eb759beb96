"""Sweeps under fire: workers, machines, Ray, drivers killed, disks full, clocks set back; nothing is lost.

`python -m benchmarks.chaos` (`make chaos`) writes docs/reliability.md. A seed decides on faults and moments.
"""
