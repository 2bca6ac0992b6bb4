"""Stage `train`: QLoRA on the rows, then a merge into the full-precision base."""
