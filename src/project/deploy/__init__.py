"""A trained model as one file that gives the same answer everywhere; nothing else in the project imports it."""
