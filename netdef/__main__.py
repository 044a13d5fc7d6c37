"""Lets `python -m netdef` stand for the command `netdef`."""

from netdef.cli import main

if __name__ == "__main__":
    main()
