"""Our rows beside published points of the same case, as ratios."""
