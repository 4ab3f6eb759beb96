"""An output folder: every write, and the one answer to which of its shards count."""

OUTPUTS = "outputs"
"""Where sweeps go by default, each into a folder of its grid's name."""
