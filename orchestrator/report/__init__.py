"""One page that says what sweeps found: as a file to send, or served while a sweep runs."""
