"""Cartwright's stages, and the core, task and runtime packages that they share."""
