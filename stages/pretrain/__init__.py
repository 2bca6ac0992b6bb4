"""Makes the base model that ships with the project; no stage of the pipeline, run by hand once."""
