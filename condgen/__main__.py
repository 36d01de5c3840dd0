"""``python -m condgen`` (and so ``torchrun -m condgen``) is the command ``condgen``."""

from condgen.cli import main

if __name__ == "__main__":
    main()
