"""How to run one unit of a robustsweep sweep. Imports nothing from `orchestrator`."""
