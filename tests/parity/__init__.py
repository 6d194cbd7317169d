"""Parity with the originals, on weights and inputs that anybody can rebuild."""
