"""What `main.py` does, a command a file."""
