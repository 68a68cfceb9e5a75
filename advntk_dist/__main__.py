"""``python -m advntk_dist``."""

from advntk_dist.cli import main

main()
