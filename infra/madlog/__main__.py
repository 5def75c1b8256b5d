"""`python -m madlog` is the command line."""

from madlog.cli import main

if __name__ == "__main__":
    main()
