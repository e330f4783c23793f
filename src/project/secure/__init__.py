"""Models that change hands: signed, so that an altered one is refused; encrypted where they lie."""
