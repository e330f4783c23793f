"""Run the command line as a module: `python -m project COMMAND` equals `python train.py COMMAND`."""

from project.cli import main

if __name__ == "__main__":
    main()
