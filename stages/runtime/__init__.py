"""The engines that an intent model runs on; each module imports its backend, none is shared."""
