"""`python -m demur`: the command line, also where demur is on the path but not installed."""

from demur.cli import main

if __name__ == "__main__":
    main()
