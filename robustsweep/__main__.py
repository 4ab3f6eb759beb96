"""`python -m robustsweep` is the command line."""

from __future__ import annotations

from orchestrator.cli import main

main()
