"""advntk submit JOB --follow with less patience: follow_driver.py JOB ADDRESS."""

from __future__ import annotations

import sys

from advntk_dist.cli import main as advntk
from advntk_dist.jobs import client, follow


def main() -> None:
    follow._SILENCE = follow._PAUSE = 0.5
    follow._TRIES, client._ANSWER_SECONDS = 2, 1
    advntk(["submit", sys.argv[1], "--address", sys.argv[2], "--follow"])


if __name__ == "__main__":
    main()
