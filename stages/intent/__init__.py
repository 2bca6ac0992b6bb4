"""The task: row format, prompt, answer schema, catalog trie, metrics. Standard library only."""
