"""The one place that holds robustsweep's version; a driver and its workers must agree on it."""

VERSION = "0.1.0"
