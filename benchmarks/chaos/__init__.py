"""Sweeps under fire: workers, machines, Ray and drivers killed, disks full, clocks set back; nothing may be lost.

`python -m benchmarks.chaos` (`make chaos`) writes docs/reliability.md. A seed decides on faults and moments.
"""
