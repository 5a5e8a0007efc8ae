"""The scripts in bench/ are no package: they find each other because they lie side by side."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "bench", ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
