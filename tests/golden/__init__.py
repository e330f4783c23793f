"""Whether a change of the code changed what it computes."""
