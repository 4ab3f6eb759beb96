"""Victims: their architectures, how they are trained, and the cache of their weights."""
