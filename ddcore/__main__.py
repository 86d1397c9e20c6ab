"""`python -m ddcore` is the console script `ddcore`."""

from ddcore.cli import main

main()
