"""From the merged model to GGUF files, each held against the model that it was made from."""
