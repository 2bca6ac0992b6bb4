"""The report: which variant to use, why, and where it came from; built from metrics alone."""
