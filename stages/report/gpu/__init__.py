"""The section on the GPU bench: its content, its tables and its plots."""
