"""The service: one GGUF model behind HTTP, answers constrained to the catalog."""
