"""What is signed, what is encrypted, and what comes from elsewhere."""
