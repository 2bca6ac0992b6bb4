"""Two reports side by side: what differs, and what is within the noise."""
