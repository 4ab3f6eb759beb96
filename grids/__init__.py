"""The grids that come with robustsweep, loadable by their bare names."""
