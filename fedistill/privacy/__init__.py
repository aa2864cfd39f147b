"""What the guarantee rests on: adjacency, accountant, integer grid, noise, ledger, receipts.

Nothing here knows torch or Flower, and nothing here takes a random generator.
"""
