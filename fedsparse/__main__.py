"""python -m fedsparse is the same as main.py."""

from fedsparse.commands import door

if __name__ == "__main__":
    door()
