"""Measurements behind the claims of the README, one script a claim."""
