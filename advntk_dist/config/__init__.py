"""One typed, frozen configuration: TOML in, ``--set section.key=value`` on top, resolved TOML out."""

from advntk_dist.config.attack import AttackConfig as AttackConfig
from advntk_dist.config.presets import preset_names as preset_names
from advntk_dist.config.presets import preset_text as preset_text
from advntk_dist.config.read import load_config as load_config
from advntk_dist.config.read import parse_config as parse_config
from advntk_dist.config.read import read_text as read_text
from advntk_dist.config.read import read_values as read_values
from advntk_dist.config.read import require_possible_radius as require_possible_radius
from advntk_dist.config.run import IDENTITY_FREE as IDENTITY_FREE
from advntk_dist.config.run import RunConfig as RunConfig
from advntk_dist.config.run import difference as difference
from advntk_dist.config.train import TrainConfig as TrainConfig
from advntk_dist.config.values import Positive as Positive
from advntk_dist.config.values import Section as Section
from advntk_dist.config.values import Seed as Seed
