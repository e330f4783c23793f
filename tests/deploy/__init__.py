"""What is exported answers as what was trained."""
