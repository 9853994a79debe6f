"""Simulations: all parties of a round, or of a tree of rounds, made up and run on one machine or one cluster."""
