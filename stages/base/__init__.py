"""Stage `base`: brings in a base model and checks it; the only stage with network."""
