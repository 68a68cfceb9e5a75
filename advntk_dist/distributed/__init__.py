"""Work on Ray actors, the one mechanism for Gram tiles, batches of images, resident tiles and finite networks.

``session`` starts or joins Ray, ``pool`` starts, pings, replaces and ends actors, ``scheduler`` hands tasks to them,
``autoscaling`` decides how many there should be. Nothing else in the package creates, watches or ends an actor.
"""

import os

# Ray reads these when it is first imported. Under `uv run` it would build each worker an environment of its own.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# Ray would start a worker for each core at once. Ours have an environment of their own, so these would only take time.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
