"""A report served on this machine while sweeps run."""
