"""One typed, frozen configuration: TOML in, ``--set section.key=value`` on top, resolved TOML out."""

from advntk_dist.config.read import load_config as load_config
from advntk_dist.config.read import parse_as as parse_as
from advntk_dist.config.read import parse_config as parse_config
from advntk_dist.config.read import preset_names as preset_names
from advntk_dist.config.read import preset_text as preset_text
from advntk_dist.config.read import read_config as read_config
from advntk_dist.config.read import read_text as read_text
from advntk_dist.config.read import read_values as read_values
from advntk_dist.config.read import require_possible_radius as require_possible_radius
from advntk_dist.config.sections import IDENTITY_FREE as IDENTITY_FREE
from advntk_dist.config.sections import AttackConfig as AttackConfig
from advntk_dist.config.sections import Positive as Positive
from advntk_dist.config.sections import RunConfig as RunConfig
from advntk_dist.config.sections import Section as Section
from advntk_dist.config.sections import Seed as Seed
from advntk_dist.config.sections import TrainConfig as TrainConfig
from advntk_dist.config.sections import difference as difference
