"""Where in an image the evidence lies, and what in the net matters."""

from project.explain.evidence import METHODS, evidence
from project.explain.faithfulness import faithfulness, random_evidence
from project.explain.pictures import overlay

__all__ = ["METHODS", "evidence", "faithfulness", "overlay", "random_evidence"]
