"""`python -m fertool`, for torchrun and for machines without the console script."""

from fertool.cli.app import main

if __name__ == "__main__":
    main()
