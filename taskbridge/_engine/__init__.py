"""One request, one submission, one download: decided here without I/O, carried out by `taskbridge._runtime`."""
