"""The build system: pipeline, profiles, keys, artifacts, plans. Standard library and PyYAML only."""
