"""Whole particle sets between the programs: read into the model, written as the target has them."""
