"""Print the oldest release of what helexa says it runs on, as constraints for pip.

``msgspec>=0.21`` becomes ``msgspec==0.21.*``; ``make floors`` runs the tests on these.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    for needed in [*project["dependencies"], *extras["neuron"], *extras["postgres"]]:
        found = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", needed)
        if found:
            print(f"{found[1]}=={found[2]}.*")


if __name__ == "__main__":
    main()
