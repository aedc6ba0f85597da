"""Two small trained reward models shipped with the package, and the commands that train and measure them.

`builtin/arithmetic-orm` (an outcome model) and `builtin/arithmetic-prm` (a process model) judge short word problems in
addition and subtraction. They are for trying things out, tests and documentation; their cards, README.md beside each,
say what they can and cannot do.
"""

from reward_hub.checkpoints.builtin import NAMES as NAMES
from reward_hub.checkpoints.builtin import path as path
