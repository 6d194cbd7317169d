"""Training: one loop, one file per method for its targets, losses and stages, recipes as data."""
