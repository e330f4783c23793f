"""`python -m project COMMAND` is `python train.py COMMAND`."""

from project.cli import main

if __name__ == "__main__":
    main()
