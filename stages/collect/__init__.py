"""Rows from outside: written by a model behind an endpoint, or fetched from the hub.

Not a stage: what comes from outside becomes a JSONL file of the row format once, and a profile
names that file as `data.import_path`. The data stage itself has no network and stays repeatable.
"""
