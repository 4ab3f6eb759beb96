"""The grid: what a sweep measures, as written by a person and checked as a whole.

`load` reads a file or a shipped grid, `document` knows the line of every value, one parser for each section
of a grid collects every problem through `checker`, and `entries` says what comes out.
"""
