"""`python -m weft`: run an unmodified program on Weft, as `python` would run it."""

from weft._command import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
