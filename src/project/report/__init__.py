"""One page that says how a tested run went, or how several compare."""
