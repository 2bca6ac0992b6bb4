"""From the merged model to a GPTQ or AWQ checkpoint, held against the merged model."""
