from __future__ import annotations

import sys
from pathlib import Path

# The job's modules import each other as Ray runs them: from the job's own directory.
sys.path.insert(0, str(Path(__file__).parents[3] / "ray_jobs" / "processing"))
