"""`python -m mexit_edge`: the command line, where its script is not on the path."""

from mexit_edge.cli import main

if __name__ == "__main__":
    main()
