"""Analysis of trained networks and of differences between methods, on arrays alone."""
