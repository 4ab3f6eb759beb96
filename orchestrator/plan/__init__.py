"""From a grid to cells with ids, and from cells, less what is there, to units. Pure: touches no file."""
