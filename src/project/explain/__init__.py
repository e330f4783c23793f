"""Where in an image the evidence lies, and what in the net matters."""

from project.explain.deletion import faithfulness, random_evidence
from project.explain.maps import METHODS, evidence, overlays
from project.explain.pictures import overlay
from project.explain.watch import Watch

__all__ = ["METHODS", "Watch", "evidence", "faithfulness", "overlay", "overlays", "random_evidence"]
