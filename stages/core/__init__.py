"""The build system: pipeline, profiles, keys, artifacts, plans. Only PyYAML from outside."""
