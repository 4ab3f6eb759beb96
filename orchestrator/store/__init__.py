"""An output folder: every write, and the one answer to which of its shards count."""
