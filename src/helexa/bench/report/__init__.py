"""What the store says, for people and programs: answers first, then their renderings."""
