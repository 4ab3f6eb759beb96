"""The commands of `robustsweep`: what they take, and what they print. What they do is imported when they are
called, so that `--help` costs nothing."""
