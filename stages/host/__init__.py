"""What runs on the user's machine: Docker, the terminal, and the commands behind `invoke`."""
