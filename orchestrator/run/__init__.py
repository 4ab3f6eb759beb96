"""One sweep, end to end: what is missing is handed to workers until nothing is left, then merged."""
